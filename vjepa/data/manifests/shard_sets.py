"""Sets of tar shards as manifests: each video's place in them, from the set's index or from the tars themselves."""

from __future__ import annotations

import itertools
import json
import logging
import os
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
    CLIP_COLUMNS,
    DEFAULTS,
    SHARD_INDEX,
    Shard,
    columns_of,
    missing_shards,
    read_shard_index,
)
from vjepa.data.remote import Member, filesystem, is_url
from vjepa.errors import DecodeError
from vjepa.files import digest, write_text

log = logging.getLogger(__name__)

COMPRESSED = re.compile(r".+\.(tgz|tar\.(gz|bz2|xz|zst))")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
# a URL with one of these endings is one file; any other may be a folder of shards
FILE_SUFFIXES = (
    VIDEO_SUFFIXES | IMAGE_SUFFIXES | PARQUET_SUFFIXES | {".csv", ".tsv", ".txt", ".jsonl", ".ndjson"}
)


class ShardSet(NamedTuple):
    """The clips of a set of shards as a manifest file would list them, and the names of the labels, if fixed."""

    table: Table
    label_names: tuple[str, ...]


def shard_set(source: str | Path) -> ShardSet | None:
    """Return the clips of a set of shards, or `None` if `source` is not a set of shards.

    Args:
        source: `shards.json`, a folder or URL that holds one, a folder of tars, or tars: `set-{000000..000009}.tar`.

    Raises:
        ManifestError: If a shard or the index is missing, truncated or of another format.
    """
    source = str(source)
    if COMPRESSED.fullmatch(source):
        raise ManifestError(source, 0, "compressed, so single clips cannot be read. Unpack it to a .tar")
    index, tars = _find(source)
    try:
        if index is not None:
            return _from_index(index, tars)
        return _set_of([(tar, scanned(tar)) for tar in tars], ()) if tars else None
    except DecodeError as e:
        raise ManifestError(e.path, 0, e.reason) from e


def expand_braces(text: str) -> list[str]:
    """Return all names that a pattern of numbers stands for.

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
    """Return the index of a set, if it has one, and the requested tars; with an index, no tars means all."""
    if PurePosixPath(source).name == SHARD_INDEX:
        return source, []
    if source.endswith(".tar"):
        tars = expand_braces(source)
        beside = _below(_folder_of(source), SHARD_INDEX)
        return (beside if _exists(beside) else None), tars
    one_file = (
        PurePosixPath(source).suffix.lower() in FILE_SUFFIXES if is_url(source) else not Path(source).is_dir()
    )
    if one_file:
        return None, []
    index = _below(source, SHARD_INDEX)
    return (index, []) if _exists(index) else (None, _listed(source))


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
    if not is_url(folder):
        return sorted(map(str, Path(folder).glob("*.tar")))
    fs, inside = filesystem(folder)
    if "http" in fs.protocol:  # there is no common format for a web page that lists files
        return []
    return sorted(fs.unstrip_protocol(path) for path in fs.glob(_below(inside, "*.tar")))


def _from_index(index: str, wanted: list[str]) -> ShardSet:
    try:
        about, shards = read_shard_index(index)
    except ValueError as e:
        raise ManifestError(index, 0, str(e)) from e
    folder = _folder_of(index)
    if wanted:
        named = {PurePosixPath(tar).name for tar in wanted}
        if absent := sorted(named - {shard.name for shard in shards}):
            raise ManifestError(index, 0, f"has no shard {absent[0]}. Name shards that it has")
        shards = [shard for shard in shards if shard.name in named]
    if not is_url(folder) and (gone := list(missing_shards(folder, shards))):
        raise ManifestError(
            index,
            0,
            f"{len(gone)} shards are missing or truncated: {', '.join(gone[:5])}. Copy the whole set",
        )
    named_shards = [(_below(folder, shard.name), shard) for shard in shards if len(shard)]
    return _set_of(named_shards, tuple(about["label_names"]))


def _set_of(shards: list[tuple[str, Shard]], names: tuple[str, ...]) -> ShardSet:
    texts = [_texts(tar, shard, names) for tar, shard in shards]
    return ShardSet(Table.listed("WebDataset shards", _concatenated(texts)), names)


def _texts(tar: str, shard: Shard, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return a shard's columns as a manifest file would have them."""
    columns = shard.columns
    tar = tar if is_url(tar) else str(Path(tar).absolute())  # else it would start from the manifest's folder
    places = zip(columns["offset"], columns["size"], columns["path"], strict=True)
    texts = {"path": [Member(tar, *place).path for place in places]}
    for name in columns.keys() - {"path", "offset", "size"}:
        texts[name] = ["" if cell is None else str(cell) for cell in columns[name]]
    if names and "label" in columns:
        texts["label"] = ["" if cell == DEFAULTS.label else names[cell] for cell in columns["label"]]
    return texts


def _concatenated(parts: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    columns = dict.fromkeys(name for part in parts for name in part)
    return {
        name: [cell for part in parts for cell in part.get(name, itertools.repeat("", len(part["path"])))]
        for name in columns
    }


def scanned(tar: str) -> Shard:
    """Return the content of a tar; its headers are read once and the result is cached in `~/.cache/vjepa/shards`.

    Raises:
        ManifestError: If the file is not a tar or holds no video.
    """
    try:
        name = digest(os.fsencode(f"{tar}\n{_state(tar)}"))
    except OSError as e:
        raise ManifestError(tar, 0, "no such shard. Correct the name, or copy it here") from e
    cached = Path.home() / ".cache" / "vjepa" / "shards" / f"{name}.json"
    if cached.is_file():
        return Shard.from_json(json.loads(cached.read_text(encoding="utf-8")))
    shard = scan(tar)
    cached.parent.mkdir(parents=True, exist_ok=True)
    write_text(json.dumps(asdict(shard)), cached)
    log.info("%s: found %d clips; listed in %s", tar, len(shard), cached)
    return shard


def _state(tar: str) -> str:
    """Return what a file system reports about a file that changes with its content."""
    if not is_url(tar):
        found = Path(tar).absolute().stat()
        return f"{Path(tar).absolute()} {found.st_size} {found.st_mtime_ns}"
    fs, inside = filesystem(tar)
    info = fs.info(inside)
    return repr([info.get(name) for name in ("size", "ETag", "etag", "mtime", "LastModified", "created")])


def scan(tar: str) -> Shard:
    """Read the headers of a tar, and its labels: `.cls`, or "label" in `.json`."""
    samples: dict[str, dict[str, Any]] = {}
    try:
        with _opened(tar) as file, tarfile.open(fileobj=file, mode="r:") as opened:
            for member in opened:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    key, _, ending = name.partition(".")  # WebDataset splits at the first dot
                    _note(samples.setdefault(f"{folder}/{key}", {}), ending.lower(), opened, member)
            num_bytes = opened.offset
    except (tarfile.TarError, EOFError, ValueError) as e:
        raise ManifestError(tar, 0, f"not a tar, or truncated ({e}). Copy it again") from e
    rows = [row for sample in samples.values() for row in _rows(sample)]
    if not rows:
        reason = f"no video in {len(samples)} samples ({' '.join(sorted(VIDEO_SUFFIXES))}). Give other shards"
        raise ManifestError(tar, 0, reason)
    return Shard(PurePosixPath(tar).name, num_bytes, columns_of(rows))


def _opened(tar: str) -> AbstractContextManager[Any]:
    if not is_url(tar):
        return open(tar, "rb")
    fs, inside = filesystem(tar)
    return fs.open(inside, "rb", block_size=1 << 20)  # the size of a read: videos are skipped, not read


def _note(sample: dict[str, Any], ending: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    suffix = f".{ending.rpartition('.')[2]}"
    if suffix in VIDEO_SUFFIXES or (suffix in IMAGE_SUFFIXES and "offset" not in sample):
        sample |= {"path": member.name, "offset": member.offset_data, "size": member.size}
    elif ending in ("json", "cls"):
        content = tar.extractfile(member)
        assert content is not None  # a file has one
        sample[ending] = content.read()


def _rows(sample: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one sample: one, or as many as `vjepa data shard` wrote into its `.json`."""
    if "offset" not in sample:
        return
    about = json.loads(sample.get("json", b"{}"))
    about = about if isinstance(about, dict) else {}
    place = {"path": sample["path"], "offset": sample["offset"], "size": sample["size"]}
    if isinstance(about.get("path"), str):
        place["path"] = about["path"]
    for fields in (about, *about.get("more", ())):
        label = fields.get("label_name", fields.get("label", sample.get("cls", b"").decode().strip()))
        row = {name: fields.get(name, getattr(DEFAULTS, name)) for name in CLIP_COLUMNS[1:]}
        yield place | row | {"label": str(label) if isinstance(label, (str, int)) else ""}
