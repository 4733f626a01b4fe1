"""The index of a set of tar shards: which clips each shard holds, and where their videos lie in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vjepa.data.manifests.rows import ManifestRow
from vjepa.data.remote import fetch, filesystem, is_url, member_of
from vjepa.errors import SettingError

INDEX = "shards.json"
FORMAT = "vjepa-shards-1"
COLUMNS = ("label", "start", "end", "group", "weight", "pair")
PLAIN = ManifestRow("")  # what a row without these columns has


@dataclass
class Shard:
    """What one shard holds: a row for each of its clips, by column, and the files that were left out.

    `path`, `offset` and `size` say where each clip's video lies in the tar; a column that says nothing is absent.
    """

    name: str
    num_bytes: int
    columns: dict[str, list[Any]]
    left_out: list[dict[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.columns["path"])

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Shard:
        """Return a shard from its entry in a JSON file. The digest in older files is ignored."""
        return cls(**{name: value for name, value in saved.items() if name != "blake2b"})


def size_of(path: str) -> int:
    """Bytes of a row's video; 0 where it cannot be told: such a file is left out when it is due."""
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
    """Rows by column, less the columns in which each row has what a row has by default."""
    columns = {name: [row[name] for row in rows] for name in ("path", "offset", "size", *COLUMNS)}
    plain = {name: getattr(PLAIN, name) for name in COLUMNS}
    return {
        name: cells
        for name, cells in columns.items()
        if name not in plain or any(c != plain[name] for c in cells)
    }


def read_index(path: str) -> tuple[dict[str, Any], list[Shard]]:
    """What `write_index` wrote: all but the shards, and the shards.

    Raises:
        ValueError: if it is something else.
    """
    try:
        content = json.loads(fetch(path))
        if content["format"] != FORMAT:
            raise SettingError(f"format {content['format']!r}")
        return content, [Shard.from_json(shard) for shard in content.pop("shards")]
    except (ValueError, KeyError, TypeError) as e:
        raise SettingError(
            f"{path} is no index of shards ({e}). Make one with `vjepa data shard`, or give the .tar files"
        ) from e


def missing_shards(out: str, shards: Sequence[Shard]) -> Iterator[str]:
    """Names of the shards that are not there, or not of the size that the index says."""
    for shard in shards:
        if size_of(f"{out}/{shard.name}") != shard.num_bytes:
            yield shard.name
