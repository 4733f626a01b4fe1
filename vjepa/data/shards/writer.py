"""Writer of a manifest's videos as WebDataset tar shards, with the index that makes them a manifest again."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vjepa.data.decoders.base import Opener
from vjepa.data.decoders.limited import DEFAULT_SECONDS, opener
from vjepa.data.decoders.opening import open_video
from vjepa.data.loading.order import epoch_order
from vjepa.data.manifests.identity import content_state, is_same_content, name_in, row_identities
from vjepa.data.manifests.rows import Manifest, ManifestRow
from vjepa.data.manifests.shard_index import (
    CLIP_COLUMNS,
    DEFAULTS,
    SHARD_FORMAT,
    SHARD_INDEX,
    Shard,
    columns_of,
    size_of,
)
from vjepa.data.remote import fetch, fetch_video, filesystem, is_url, suffix_of
from vjepa.errors import DecodeError
from vjepa.files import digest, file_crc32, replacing, write_bytes
from vjepa.names import redacted
from vjepa.readers import content_of, parse_json

HEADER_BYTES = tarfile.BLOCKSIZE  # names are short, so every header takes one block


class ShardFile(NamedTuple):
    """A video to write into a shard: its path, its name in the set, and its rows of the manifest."""

    path: str
    name: str
    rows: tuple[ManifestRow, ...]


@dataclass(frozen=True)
class ShardPlan:
    """The content of one shard to write; the shard depends on nothing else, wherever it is written.

    `number` counts the files of all shards before it, so that sample keys are unique in a set.
    """

    name: str
    out: str
    number: int
    files: tuple[ShardFile, ...]
    label_names: tuple[str, ...]
    decoder: str
    thorough: bool = False

    def content(self) -> dict[str, str]:
        """Return by what replaced videos are recognised."""
        return content_state((file.path for file in self.files), thorough=self.thorough)


def plan_shards(
    manifest: Manifest,
    *,
    out: str,
    name: str,
    max_bytes: int,
    clips_per_shard: int | None,
    decoder: str,
    seed: int,
    thorough: bool = False,
) -> list[ShardPlan]:
    """Shuffle a manifest's files and distribute them over shards `name-000000.tar` and so on, in a folder or URL `out`.

    A shard with more than one file has at most `max_bytes` and `clips_per_shard`. `decoder` checks that each file can
    be read. With `thorough`, replaced files are recognised by their content, beside size and time of change.
    """
    files: dict[str, list[int]] = {}
    for i, row in enumerate(manifest.rows):
        files.setdefault(row.path, []).append(i)
    firsts = np.array([rows[0] for rows in files.values()])
    paths = list(files)
    groups: list[list[ShardFile]] = [[]]
    num_bytes = num_clips = 0
    for i in epoch_order(row_identities(manifest)[firsts], seed, 0).tolist():
        path = paths[i]
        rows = tuple(manifest.rows[row] for row in files[path])
        size = size_of(path)
        full = num_bytes + size > max_bytes
        full |= clips_per_shard is not None and num_clips + len(rows) > clips_per_shard
        if groups[-1] and full:
            groups.append([])
            num_bytes = num_clips = 0
        groups[-1].append(ShardFile(path, redacted(name_in(path, manifest.base)), rows))
        num_bytes, num_clips = num_bytes + size, num_clips + len(rows)
    numbers = itertools.accumulate(map(len, groups), initial=0)
    return [
        ShardPlan(f"{name}-{i:06d}.tar", out, number, tuple(group), manifest.label_names, decoder, thorough)
        for i, (number, group) in enumerate(zip(numbers, groups, strict=False))
    ]


def write_shard(plan: ShardPlan) -> Shard:
    """Write one shard, whole or not at all, from the files' bytes; omit an unreadable file.

    The same files make the same bytes. Each sample is `key.mp4` (with the file's own ending) and `key.json`. A shard
    that exists already is not written again.
    """
    if (done := written_shard(plan)) is not None:
        return done
    state = plan.content()
    rows: list[dict[str, Any]] = []
    omitted: list[dict[str, str]] = []
    videos = opener(plan.decoder, DEFAULT_SECONDS)
    with _destination(plan) as raw:
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for place, file in enumerate(plan.files):
                try:
                    content = _readable(file.path, videos)
                except DecodeError as e:
                    omitted.append({"path": redacted(e.path), "reason": redacted(e.reason)})
                    continue
                key = f"{plan.number + place:09d}"
                fields = [_fields(row, plan.label_names) for row in file.rows]
                about = {"path": file.name, **fields[0], **({"more": fields[1:]} if fields[1:] else {})}
                offset = _add(tar, key + suffix_of(file.path), content)
                _add(tar, f"{key}.json", _encoded(json.dumps(about, ensure_ascii=False)))
                place_of = {"path": file.name, "offset": offset, "size": len(content)}
                rows += [place_of | {c: getattr(row, c) for c in CLIP_COLUMNS} for row in file.rows]
        shard = Shard(plan.name, raw.tell(), columns_of(rows), omitted, file_crc32(raw))
        # the record first: a shard is complete if its record and a tar of the recorded size exist
        put(record_of(plan), io.BytesIO(json.dumps([plan_hash([plan]), asdict(shard), state]).encode()))
    return shard


def record_of(plan: ShardPlan) -> str:
    """Return the path of the file that marks a shard as written, until the set is complete."""
    return f"{plan.out}/{plan.name}.json"


def written_shard(plan: ShardPlan) -> Shard | None:
    """Return the shard that this plan made of the same videos, or `None` if it is not written yet."""
    try:
        record = fetch(record_of(plan))
    except DecodeError:
        return None
    with content_of(record_of(plan), "the record of a shard; delete it"):
        return _finished_shard(plan, *parse_json(record, record_of(plan)))


def _finished_shard(plan: ShardPlan, made_by: str, shard: dict[str, Any], *states: Any) -> Shard | None:
    tar = f"{plan.out}/{plan.name}"
    if size_of(tar) != shard["num_bytes"] or made_by != plan_hash([plan]):
        return None
    if not all(is_same_content(state, plan.content()) for state in states):  # older records have none
        return None
    if not is_url(tar):
        with open(tar, "rb") as file:
            if shard.get("crc32") not in (None, file_crc32(file)):
                return None  # damaged since: it is written again
    return Shard.from_json(shard)


@contextmanager
def _destination(plan: ShardPlan) -> Iterator[Any]:
    """Give an empty file that becomes the shard if the block raises nothing."""
    if is_url(plan.out):
        with tempfile.TemporaryFile() as raw:
            yield raw
            raw.seek(0)
            put(f"{plan.out}/{plan.name}", raw)
        return
    folder = Path(plan.out)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f".{plan.name}.*"):  # of a killed process; it may be as large as a shard
        leftover.unlink()
    with replacing(folder / plan.name) as temporary, temporary.open("w+b") as raw:
        yield raw


def _readable(path: str, videos: Opener) -> bytes:
    """Return the bytes of a video, after decoding its first frame as a check."""
    content = fetch_video(path)
    with open_video(videos, path, fetch=lambda _: content) as video:
        video.frames_at([0])
    return content


def _fields(row: ManifestRow, label_names: tuple[str, ...]) -> dict[str, Any]:
    labelled = row.label != DEFAULTS.label
    return {
        "label": row.label if labelled else None,
        "label_name": label_names[row.label] if labelled else None,
        "start": row.start,
        "end": row.end,
        "group": row.group,
        "weight": row.weight,
        "pair": row.pair,
    }


def _encoded(text: str) -> bytes:
    """Return JSON as UTF-8; bytes of names that are not UTF-8 become escapes, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file without owner and date, so that equal files make equal shards; return where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    begin = tar.offset + HEADER_BYTES
    tar.addfile(member, io.BytesIO(content))
    return begin


def put(path: str, content: Any) -> None:
    """Write the rest of a binary file to a file or a URL, whole or not at all."""
    if not is_url(path):
        return write_bytes(content.read(), Path(path))
    fs, inside = filesystem(path)
    fs.makedirs(fs._parent(inside), exist_ok=True)
    with fs.transaction, fs.open(inside, "wb") as there:
        for chunk in iter(lambda: content.read(1 << 24), b""):
            there.write(chunk)


def plan_hash(plans: Sequence[ShardPlan]) -> str:
    """Return a digest of a set: its files' names, rows and places, and the label names."""
    texts = []
    for plan in plans:
        files = [(file.name, [row._replace(path="", line=0) for row in file.rows]) for file in plan.files]
        texts.append(repr((plan.name, plan.number, plan.label_names, files)).encode())
    return digest(*texts)


def write_shard_index(out: str, *, shards: Sequence[Shard], plans: Sequence[ShardPlan]) -> None:
    """Write `shards.json`: the set's shards and their clips, as columns."""
    content = {
        "format": SHARD_FORMAT,
        "plan": plan_hash(plans),
        "content": [plan.content() for plan in plans],
        "label_names": list(plans[0].label_names),
        "num_clips": sum(map(len, shards)),
        "shards": [asdict(shard) for shard in shards],
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    put(f"{out}/{SHARD_INDEX}", io.BytesIO(_encoded(text)))
