"""The index of a set of tar shards: which clips each shard holds, and where their videos lie in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vjepa.data.manifests.rows import ManifestRow
from vjepa.data.remote import fetch, filesystem, is_url, member_of
from vjepa.errors import SettingError
from vjepa.readers import content_of, parse_json

SHARD_INDEX = "shards.json"
SHARD_FORMAT = "vjepa-shards-1"
CLIP_COLUMNS = ("label", "start", "end", "group", "weight", "pair")
DEFAULTS = ManifestRow("")  # the values of a row without these columns


@dataclass
class Shard:
    """The content of one shard: a row for each of its clips, as columns, and the unreadable files it lacks.

    `path`, `offset` and `size` locate each clip's video in the tar; a column with only default values is absent.
    `crc32` is the checksum of the tar, in hexadecimal; None if none was recorded.
    """

    name: str
    num_bytes: int
    columns: dict[str, list[Any]]
    left_out: list[dict[str, str]] = field(default_factory=list)
    crc32: str | None = None

    def __len__(self) -> int:
        return len(self.columns["path"])

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Shard:
        """Return the shard that `asdict` wrote; an older entry also has a digest, which nothing reads."""
        return cls(**{name: value for name, value in content.items() if name != "blake2b"})


def size_of(path: str) -> int:
    """Return the bytes of a row's video, or 0 if the size is unknown: such a file is omitted when it is written."""
    if (member := member_of(path)) is not None:
        return member.size
    try:
        if not is_url(path):
            return Path(path).stat().st_size
        fs, inside = filesystem(path)
        return fs.info(inside).get("size") or 0
    except OSError:
        return 0


def columns_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Convert rows to columns; omit a column in which each row has the default value."""
    columns = {name: [row[name] for row in rows] for name in ("path", "offset", "size", *CLIP_COLUMNS)}
    defaults = {name: getattr(DEFAULTS, name) for name in CLIP_COLUMNS}
    return {
        name: cells
        for name, cells in columns.items()
        if name not in defaults or any(cell != defaults[name] for cell in cells)
    }


def read_shard_index(path: str) -> tuple[dict[str, Any], list[Shard]]:
    """Return the fields of a set's index without the shards, and the shards; `FileError` for another file."""
    with content_of(path, "an index of shards, which `vjepa data shard` writes"):
        content = parse_json(fetch(path), path)
        if content["format"] != SHARD_FORMAT:
            raise SettingError(f"format {content['format']!r}, this vjepa reads {SHARD_FORMAT}")
        names = content.get("label_names", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SettingError(f"label_names {names!r}")
        shards = [Shard.from_json(shard) for shard in content.pop("shards")]
        for shard in shards:
            _check(shard, num_labels=len(names))
        return content, shards


def _check(shard: Shard, *, num_labels: int) -> None:
    """Check the columns of a shard, which locate bytes and name labels.

    Raises:
        SettingError: If one cannot be; the message names the shard.
    """
    columns = shard.columns
    unknown = columns.keys() - {"path", "offset", "size", *CLIP_COLUMNS}
    if PurePosixPath(shard.name).name != shard.name or unknown or len({*map(len, columns.values())}) > 1:
        raise SettingError(f"shard {shard.name!r}: its name or its columns {sorted(unknown)} cannot be")
    wrong = [offset for offset in columns["offset"] if type(offset) is not int or offset < 0]
    wrong += [size for size in columns["size"] if type(size) is not int or not 0 <= size <= shard.num_bytes]
    if wrong:
        raise SettingError(f"shard {shard.name!r}: {wrong[0]!r} is not a place in it")
    for label in columns.get("label", ()):
        if num_labels and (type(label) is not int or not DEFAULTS.label <= label < num_labels):
            raise SettingError(
                f"shard {shard.name!r}: label {label!r} is not one of the {num_labels}, nor -1 for none"
            )


def missing_shards(out: str, shards: Sequence[Shard]) -> Iterator[str]:
    """Yield the names of the shards that are missing or do not have the size in the index."""
    for shard in shards:
        if size_of(f"{out}/{shard.name}") != shard.num_bytes:
            yield shard.name
