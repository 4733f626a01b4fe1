"""Sets of tar shards as manifests: where each video lies in them, from the set's index or from the tars themselves."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import re
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vjepa.data.manifests.folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vjepa.data.manifests.formats import PARQUET_SUFFIXES, Table
from vjepa.data.manifests.rows import ManifestError
from vjepa.data.manifests.shard_index import (
    COLUMNS,
    INDEX,
    PLAIN,
    Shard,
    columns_of,
    missing_shards,
    read_index,
)
from vjepa.data.remote import Member, filesystem, is_url
from vjepa.errors import DecodeError

log = logging.getLogger(__name__)

KIND = "WebDataset shards"
COMPRESSED = re.compile(r".+\.(tgz|tar\.(gz|bz2|xz|zst))")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
# a URL that ends so is one file; any other may be a folder of shards
FILES = VIDEO_SUFFIXES | IMAGE_SUFFIXES | PARQUET_SUFFIXES | {".csv", ".tsv", ".txt", ".jsonl", ".ndjson"}


class ShardSet(NamedTuple):
    """The clips of a set of shards, as a manifest file would have them; the names of the labels, if they are fixed."""

    table: Table
    label_names: tuple[str, ...]


def shard_set(source: str | Path) -> ShardSet | None:
    """The clips of a set of shards; None where `source` is none.

    Args:
        source: `shards.json`, a folder or URL that holds one, a folder of tars, or tars: `set-{000000..000009}.tar`.

    Raises:
        ManifestError: if a shard or the index is missing, cut off, or something else.
    """
    source = str(source)
    if COMPRESSED.fullmatch(source):
        raise ManifestError(source, 0, "compressed, so no clip can be reached by itself. Unpack it to a .tar")
    index, tars = _find(source)
    try:
        if index is not None:
            return _from_index(index, tars)
        return _from_tars(tars) if tars else None
    except DecodeError as e:
        raise ManifestError(e.path, 0, e.reason) from e


def expand_braces(text: str) -> list[str]:
    """All names that a pattern of numbers stands for.

    >>> expand_braces("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    parts = BRACES.split(text)  # text, first, last, text, first, last, text
    numbers = [
        [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
        for first, last in zip(parts[1::3], parts[2::3], strict=True)
    ]
    return [
        "".join(itertools.chain(*itertools.zip_longest(parts[0::3], chosen, fillvalue="")))
        for chosen in itertools.product(*numbers)
    ]


def _find(source: str) -> tuple[str | None, list[str]]:
    """The index of a set, if it has one, and the tars that are wanted of it: none named means all."""
    if PurePosixPath(source).name == INDEX:
        return source, []
    if source.endswith(".tar"):
        tars = expand_braces(source)
        beside = _below(_folder_of(source), INDEX)
        return (beside if _exists(beside) else None), tars
    if is_url(source):
        if PurePosixPath(source).suffix.lower() in FILES:
            return None, []
        index = _below(source, INDEX)
        return (index, []) if _exists(index) else (None, _listed(source))
    if not Path(source).is_dir():
        return None, []
    index = _below(source, INDEX)
    return (index, []) if _exists(index) else (None, sorted(map(str, Path(source).glob("*.tar"))))


def _below(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _exists(path: str) -> bool:
    if not is_url(path):
        return Path(path).is_file()
    fs, inside = filesystem(path)
    return bool(fs.exists(inside))


def _listed(folder: str) -> list[str]:
    fs, inside = filesystem(folder)
    if "http" in fs.protocol:  # pages list files in ways of their own
        return []
    return sorted(fs.unstrip_protocol(path) for path in fs.glob(_below(inside, "*.tar")))


def _from_index(index: str, wanted: list[str]) -> ShardSet:
    try:
        about, shards = read_index(index)
    except ValueError as e:
        raise ManifestError(index, 0, str(e)) from e
    folder = _folder_of(index)
    if wanted:
        named = {PurePosixPath(tar).name for tar in wanted}
        if absent := sorted(named - {shard.name for shard in shards}):
            raise ManifestError(index, 0, f"has no shard {absent[0]}. Name those it has")
        shards = [shard for shard in shards if shard.name in named]
    if not is_url(folder) and (gone := list(missing_shards(folder, shards))):
        raise ManifestError(
            index, 0, f"{len(gone)} shards are missing or cut off: {', '.join(gone[:5])}. Copy the whole set"
        )
    names = tuple(about["label_names"])
    texts = [_texts(_below(folder, shard.name), shard, names) for shard in shards if len(shard)]
    return ShardSet(Table.listed(KIND, _joined(texts)), names)


def _from_tars(tars: list[str]) -> ShardSet:
    shards = [(tar, scanned(tar)) for tar in tars]
    texts = [_texts(tar, shard, ()) for tar, shard in shards]
    return ShardSet(Table.listed(KIND, _joined(texts)), ())


def _texts(tar: str, shard: Shard, names: tuple[str, ...]) -> dict[str, list[str]]:
    """A shard's columns as a manifest file would have them."""
    columns = shard.columns
    tar = tar if is_url(tar) else str(Path(tar).absolute())  # else it would start from the manifest's folder
    places = zip(columns["offset"], columns["size"], columns["path"], strict=True)
    texts = {"path": [Member(tar, *place).path for place in places]}
    for name in columns.keys() - {"path", "offset", "size"}:
        texts[name] = ["" if cell is None else str(cell) for cell in columns[name]]
    if names and "label" in columns:
        texts["label"] = ["" if cell == PLAIN.label else names[cell] for cell in columns["label"]]
    return texts


def _joined(parts: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    columns = dict.fromkeys(name for part in parts for name in part)
    return {
        name: [cell for part in parts for cell in part.get(name, itertools.repeat("", len(part["path"])))]
        for name in columns
    }


def scanned(tar: str) -> Shard:
    """What a tar holds, read off its headers once and then kept in `~/.cache/vjepa/shards`.

    Raises:
        ManifestError: if it is no tar, or holds no video.
    """
    try:
        state = _state(tar)
    except OSError as e:
        raise ManifestError(tar, 0, "no such shard. Correct the name, or copy it here") from e
    digest = hashlib.blake2b(f"{tar}\n{state}".encode(), digest_size=16).hexdigest()
    kept = Path.home() / ".cache" / "vjepa" / "shards" / f"{digest}.json"
    if kept.is_file():
        return Shard.from_json(json.loads(kept.read_text(encoding="utf-8")))
    shard = scan(tar)
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f".{kept.name}.part")
    partial.write_text(json.dumps(asdict(shard)), encoding="utf-8")
    partial.replace(kept)
    log.info("%s: %d clips found, kept in %s", tar, len(shard), kept)
    return shard


def _state(tar: str) -> str:
    """What changes when a file does, as far as its file system tells."""
    if not is_url(tar):
        found = Path(tar).absolute().stat()
        return f"{Path(tar).absolute()} {found.st_size} {found.st_mtime_ns}"
    fs, inside = filesystem(tar)
    info = fs.info(inside)
    return repr([info.get(name) for name in ("size", "ETag", "etag", "mtime", "LastModified", "created")])


def scan(tar: str) -> Shard:
    """Read the headers of a tar, and the labels it holds: `.cls`, or "label" in `.json`."""
    samples: dict[str, dict[str, Any]] = {}
    try:
        with _opened(tar) as file, tarfile.open(fileobj=file, mode="r:") as opened:
            for member in opened:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    key, _, ending = name.partition(".")  # as WebDataset parts them: at the first dot
                    _note(samples.setdefault(f"{folder}/{key}", {}), ending.lower(), opened, member)
            num_bytes = opened.offset
    except (tarfile.TarError, EOFError, ValueError) as e:
        raise ManifestError(tar, 0, f"no tar, or cut off ({e}). Copy it again") from e
    rows = [row for sample in samples.values() for row in _rows(sample)]
    if not rows:
        raise ManifestError(
            tar,
            0,
            f"{len(samples)} samples and none is a video ({' '.join(sorted(VIDEO_SUFFIXES))}). Give other shards",
        )
    return Shard(PurePosixPath(tar).name, num_bytes, columns_of(rows))


def _opened(tar: str) -> AbstractContextManager[Any]:
    if not is_url(tar):
        return open(tar, "rb")
    fs, inside = filesystem(tar)
    return fs.open(inside, "rb", block_size=1 << 20)  # read ahead by as much: videos are skipped, not read


def _note(sample: dict[str, Any], ending: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    suffix = f".{ending.rpartition('.')[2]}"
    if suffix in VIDEO_SUFFIXES or (suffix in IMAGE_SUFFIXES and "offset" not in sample):
        sample |= {"path": member.name, "offset": member.offset_data, "size": member.size}
    elif ending in ("json", "cls"):
        content = tar.extractfile(member)
        assert content is not None  # a file has one
        sample[ending] = content.read()


def _rows(sample: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of one sample: one, or as many as `vjepa data shard` wrote into its `.json`."""
    if "offset" not in sample:
        return
    about = json.loads(sample.get("json", b"{}"))
    about = about if isinstance(about, dict) else {}
    place = {"path": sample["path"], "offset": sample["offset"], "size": sample["size"]}
    if isinstance(about.get("path"), str):
        place["path"] = about["path"]
    for fields in (about, *about.get("more", ())):
        label = fields.get("label_name", fields.get("label", sample.get("cls", b"").decode().strip()))
        row = {name: fields.get(name, getattr(PLAIN, name)) for name in COLUMNS[1:]}
        yield place | row | {"label": str(label) if isinstance(label, (str, int)) else ""}
