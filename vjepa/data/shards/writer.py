"""Writing a manifest's videos as WebDataset tar shards, and the index that makes them a manifest again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vjepa.data.decoders.base import decoder_class
from vjepa.data.decoders.opening import open_video
from vjepa.data.loading.order import epoch_order
from vjepa.data.manifests.identity import name_in, row_identities
from vjepa.data.manifests.rows import Manifest, ManifestRow
from vjepa.data.manifests.shard_index import COLUMNS, FORMAT, INDEX, PLAIN, Shard, columns_of, size_of
from vjepa.data.remote import fetch, fetch_video, filesystem, is_url, suffix_of
from vjepa.errors import DecodeError

BLOCK = tarfile.BLOCKSIZE  # a header takes one: names are short, so none is extended


class ShardFile(NamedTuple):
    """A video that goes into a shard: where it is, what it is called, and its rows of the manifest."""

    path: str
    name: str
    rows: tuple[ManifestRow, ...]


@dataclass(frozen=True)
class ShardPlan:
    """What one shard is to hold; writing it is a function of this, wherever it runs.

    `number` counts the files of the shards before it, so that sample keys are unique in a set.
    """

    name: str
    out: str
    number: int
    files: tuple[ShardFile, ...]
    label_names: tuple[str, ...]
    decoder: str


def plan_shards(
    manifest: Manifest,
    *,
    out: str,
    name: str,
    max_bytes: int,
    clips_per_shard: int | None,
    decoder: str,
    seed: int,
) -> list[ShardPlan]:
    """Mix a manifest's files by `seed`, and deal them out to shards.

    Args:
        manifest: which videos.
        out: folder or URL of the set.
        name: of the set; its shards are `name-000000.tar` and on.
        max_bytes: size of a shard, above which no further file goes into it.
        clips_per_shard: clips in a shard, likewise.
        decoder: reads each file once, to see that it can be read.
        seed: of the mixing.
    """
    files: dict[str, list[int]] = {}
    for i, row in enumerate(manifest.rows):
        files.setdefault(row.path, []).append(i)
    firsts = np.array([rows[0] for rows in files.values()])
    paths = list(files)
    plans: list[ShardPlan] = []
    held: list[ShardFile] = []
    num_bytes = num_clips = number = 0
    for i in epoch_order(row_identities(manifest)[firsts], seed, 0).tolist():
        path = paths[i]
        rows = tuple(manifest.rows[row] for row in files[path])
        size = size_of(path)
        full = num_bytes + size > max_bytes
        full |= clips_per_shard is not None and num_clips + len(rows) > clips_per_shard
        if held and full:
            plans.append(_plan(len(plans), name, out, number, held, manifest, decoder))
            number += len(held)
            held, num_bytes, num_clips = [], 0, 0
        held.append(ShardFile(path, name_in(path, manifest.base), rows))
        num_bytes, num_clips = num_bytes + size, num_clips + len(rows)
    return [*plans, _plan(len(plans), name, out, number, held, manifest, decoder)]


def _plan(
    shard: int, name: str, out: str, number: int, files: list[ShardFile], manifest: Manifest, decoder: str
) -> ShardPlan:
    return ShardPlan(f"{name}-{shard:06d}.tar", out, number, tuple(files), manifest.label_names, decoder)


def write_shard(plan: ShardPlan) -> Shard:
    """Write one shard, whole or not at all, byte for byte from the files; an unreadable file is left out.

    The same files make the same bytes. Each sample is `key.mp4` (the file's own ending) and `key.json`. A shard that
    is there already is left as it is.
    """
    if (done := written(plan)) is not None:
        return done
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    with tempfile.TemporaryFile() if is_url(plan.out) else _beside(plan) as raw:
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for place, file in enumerate(plan.files):
                try:
                    content = _readable(file.path, plan.decoder)
                except DecodeError as e:
                    left_out.append({"path": e.path, "reason": e.reason})
                    continue
                key = f"{plan.number + place:09d}"
                fields = [_fields(row, plan.label_names) for row in file.rows]
                about = {"path": file.name, **fields[0], **({"more": fields[1:]} if fields[1:] else {})}
                offset = _add(tar, key + suffix_of(file.path), content)
                _add(tar, f"{key}.json", json.dumps(about, ensure_ascii=False).encode())
                place_of = {"path": file.name, "offset": offset, "size": len(content)}
                rows += [place_of | {c: getattr(row, c) for c in COLUMNS} for row in file.rows]
        raw.flush()
        shard = Shard(plan.name, raw.tell(), columns_of(rows), left_out)
        # the record first: with it, and a tar of the right size, the shard is done
        put(record_of(plan), io.BytesIO(json.dumps([plan_hash([plan]), asdict(shard)]).encode()))
        if is_url(plan.out):
            raw.seek(0)
            put(f"{plan.out}/{plan.name}", raw)
        else:
            os.replace(raw.name, Path(plan.out) / plan.name)
    return shard


def record_of(plan: ShardPlan) -> str:
    """Where it is written down that a shard was written, until the set is whole."""
    return f"{plan.out}/{plan.name}.json"


def written(plan: ShardPlan) -> Shard | None:
    """The shard that this plan made; None where there is none yet."""
    try:
        made_by, shard = json.loads(fetch(record_of(plan)))
    except DecodeError:
        return None
    whole = size_of(f"{plan.out}/{plan.name}") == shard["num_bytes"]
    return Shard.from_json(shard) if whole and made_by == plan_hash([plan]) else None


def _beside(plan: ShardPlan) -> Any:
    """A file in the set's own folder, so that it can be renamed into place."""
    Path(plan.out).mkdir(parents=True, exist_ok=True)
    return (Path(plan.out) / f".{plan.name}.part").open("w+b")


def _readable(path: str, decoder: str) -> bytes:
    """The bytes of a video that opens, and whose first frame can be decoded."""
    content = fetch_video(path)
    with open_video(decoder_class(decoder), path, fetch=lambda _: content) as video:
        video.frames_at([0])
    return content


def _fields(row: ManifestRow, label_names: tuple[str, ...]) -> dict[str, Any]:
    labelled = row.label != PLAIN.label
    return {
        "label": row.label if labelled else None,
        "label_name": label_names[row.label] if labelled else None,
        "start": row.start,
        "end": row.end,
        "group": row.group,
        "weight": row.weight,
        "pair": row.pair,
    }


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file, with no owner and no date, so that equal files make equal shards; where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    begin = tar.offset + BLOCK
    tar.addfile(member, io.BytesIO(content))
    return begin


def put(path: str, content: Any) -> None:
    """Write a file or a URL, whole or not at all, from a binary file."""
    if is_url(path):
        fs, inside = filesystem(path)
        fs.makedirs(fs._parent(inside), exist_ok=True)
        with fs.transaction, fs.open(inside, "wb") as there:
            for chunk in iter(lambda: content.read(1 << 24), b""):
                there.write(chunk)
        return
    partial = Path(path).with_name(f".{Path(path).name}.part")
    partial.write_bytes(content.read())
    os.replace(partial, path)


def plan_hash(plans: Sequence[ShardPlan]) -> str:
    """What tells one set from another: its files' names, rows and places, and the label names."""
    digest = hashlib.blake2b(digest_size=16)
    for plan in plans:
        files = [(file.name, [row._replace(path="", line=0) for row in file.rows]) for file in plan.files]
        digest.update(repr((plan.name, plan.number, plan.label_names, files)).encode())
    return digest.hexdigest()


def write_index(out: str, *, shards: Sequence[Shard], label_names: Sequence[str], plan: str) -> None:
    """Write `shards.json`: the set's shards and their clips, by column."""
    content = {
        "format": FORMAT,
        "plan": plan,
        "label_names": list(label_names),
        "num_clips": sum(map(len, shards)),
        "shards": [asdict(shard) for shard in shards],
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    put(f"{out}/{INDEX}", io.BytesIO(text.encode()))
