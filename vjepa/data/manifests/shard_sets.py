"""Sets of tar shards as manifests: each video's place in them, from the set's index or from the tars themselves."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vjepa.data.manifests.formats import PARQUET_SUFFIXES, Table
from vjepa.data.manifests.rows import ManifestError
from vjepa.data.manifests.shard_index import (
    DEFAULTS,
    SHARD_INDEX,
    Shard,
    missing_shards,
    read_shard_index,
)
from vjepa.data.manifests.tar_samples import scan
from vjepa.data.remote import Member, filesystem, is_url
from vjepa.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vjepa.errors import DecodeError
from vjepa.files import digest, write_text
from vjepa.readers import content_of, read_json

log = logging.getLogger(__name__)

SCAN = 2  # version of `scan`, part of the name of its cached results
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
    about, shards = read_shard_index(index)
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
        name = digest(os.fsencode(f"{SCAN}\n{tar}\n{_state(tar)}"))
    except OSError as e:
        raise ManifestError(tar, 0, "no such shard. Correct the name, or copy it here") from e
    cached = Path.home() / ".cache" / "vjepa" / "shards" / f"{name}.json"
    if cached.is_file():
        with content_of(cached, "the list of a shard; delete it"):
            return Shard.from_json(read_json(cached))
    shard = scan(tar)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_text(json.dumps(asdict(shard)), cached)
        place = f"listed in {cached}"
    except OSError as error:
        place = f"not listed for the next time, as {cached.parent} cannot be written ({error.strerror})"
    log.info("%s: found %d clips; %s", tar, len(shard), place)
    return shard


def _state(tar: str) -> str:
    """Return what a file system reports about a file that changes with its content."""
    if not is_url(tar):
        found = Path(tar).absolute().stat()
        return f"{Path(tar).absolute()} {found.st_size} {found.st_mtime_ns}"
    fs, inside = filesystem(tar)
    info = fs.info(inside)
    return repr([info.get(name) for name in ("size", "ETag", "etag", "mtime", "LastModified", "created")])
