"""The rows of a manifest, stored as columns: a million take tens of megabytes, and each is made on access."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from vjepa.data.remote import is_url
from vjepa.errors import VjepaError
from vjepa.files import from_home
from vjepa.names import redacted

NO_LABEL = -1
DTYPES = {"label": np.int64, "start": np.float64, "end": np.float64, "weight": np.float64, "line": np.int64}


class ManifestError(VjepaError, ValueError):
    """A manifest that cannot be used, with its file, its line and the reason."""

    def __init__(self, file: str | Path, line: int, reason: str) -> None:
        super().__init__(str(file), line, reason)
        self.file = str(file)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return redacted(f"{place}: {self.reason}")


class ManifestRow(NamedTuple):
    """One clip source: a video file, or the part of it from `start` to `end` seconds.

    `path` may be a folder of frames, an image or a URL. Rows of one `group` must not straddle a `split`; rows of
    one `pair` are compared with each other.
    """

    path: str
    label: int = NO_LABEL
    start: float | None = None
    end: float | None = None
    group: str = ""
    weight: float = 1.0
    line: int = 0
    pair: str = ""
    split: str = ""


@dataclass(frozen=True)
class Manifest:
    """All rows of a manifest; `label` of a row is an index into `label_names`, or -1.

    `kind` and `source` describe what was read, `base` is the folder that relative paths start from.
    """

    rows: Sequence[ManifestRow]
    label_names: tuple[str, ...]
    kind: str
    source: str
    base: str = ""
    columns: tuple[str, ...] = field(default=("path",))

    def __len__(self) -> int:
        return len(self.rows)

    def describe(self) -> str:
        """Return one line that describes the content.

        >>> Manifest((ManifestRow("a.mp4"),), (), "one video", "a.mp4").describe()
        '1 clip, no labels, from one video a.mp4'
        """
        clips = f"{len(self.rows):,} clip{'s' * (len(self.rows) != 1)}"
        count = len(self.label_names)
        classes = f"{count:,} class{'es' * (count != 1)}" if count else "no labels"
        return f"{clips}, {classes}, from {self.kind} {redacted(self.source)}"

    def __repr__(self) -> str:
        return f"Manifest({self.describe()})"


@dataclass(frozen=True, eq=False)
class Texts:
    """Many strings in one block of bytes; `ends[i]` is where the i-th ends.

    >>> texts = Texts.of(["a.mp4", "", "b.mp4"])
    >>> texts[2], len(texts)
    ('b.mp4', 3)
    """

    block: bytes
    ends: Int64[ndarray, "n"]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Encode strings."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        return cls(b"".join(encoded), np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded))))

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Concatenate several."""
        shifts = np.cumsum([0, *(len(part.block) for part in parts)])
        ends = [part.ends + shift for part, shift in zip(parts, shifts, strict=False)]
        return cls(b"".join(part.block for part in parts), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return self.block[start : int(self.ends[index])].decode("utf-8", "surrogateescape")

    def encoded(self) -> Iterator[bytes]:
        """Yield each string as UTF-8, in order."""
        start = 0
        for end in self.ends.tolist():
            yield self.block[start:end]
            start = end

    def take(self, index: Int64[ndarray, "k"]) -> Texts:
        """Return the strings with the given indices, in that order."""
        return Texts.of([self[i] for i in index.tolist()])


@dataclass(frozen=True, eq=False)
class Rows(Sequence[ManifestRow]):
    """The rows as columns; paths are kept as written and joined to the folder `base` when a row is read.

    NaN stands for a missing `start` or `end`.
    """

    base: str
    path: Texts
    label: Int64[ndarray, "n"]
    start: Float64[ndarray, "n"]
    end: Float64[ndarray, "n"]
    group: Texts
    weight: Float64[ndarray, "n"]
    line: Int64[ndarray, "n"]
    pair: Texts
    split: Texts

    @classmethod
    def of(cls, rows: Iterable[ManifestRow]) -> Rows:
        """Convert rows to columns; their paths do not change."""
        columns = list(zip(*rows, strict=True)) or [()] * len(ManifestRow._fields)
        converted: dict[str, Any] = {
            name: np.array(column, DTYPES[name]) if name in DTYPES else Texts.of(column)  # None becomes NaN
            for name, column in zip(ManifestRow._fields, columns, strict=True)
        }
        return cls(base="", **converted)

    def __len__(self) -> int:
        return len(self.label)

    @overload
    def __getitem__(self, index: int) -> ManifestRow: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> ManifestRow | Rows:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self)), dtype=np.int64))
        i = range(len(self))[index]  # counts from the end if negative, and ends an iteration
        start, end = float(self.start[i]), float(self.end[i])
        return ManifestRow(
            path=self.path_of(i),
            label=int(self.label[i]),
            start=None if start != start else start,
            end=None if end != end else end,
            group=self.group[i],
            weight=float(self.weight[i]),
            line=int(self.line[i]),
            pair=self.pair[i],
            split=self.split[i],
        )

    def path_of(self, index: int) -> str:
        """Return the path of a row, joined to `base`."""
        return join_path(self.base, self.path[index])

    def take(self, index: Int64[ndarray, "k"]) -> Rows:
        """Return the rows with the given indices, in that order."""
        columns = {name: getattr(self, name) for name in ManifestRow._fields}
        taken: dict[str, Any] = {
            name: column.take(index) if isinstance(column, Texts) else column[index]
            for name, column in columns.items()
        }
        return Rows(base=self.base, **taken)


def join_path(base: str, path: str) -> str:
    """Return `path` below the folder `base`; a URL, or a path without a base, does not change."""
    if not base or is_url(path):
        return path
    if is_url(base):
        return f"{base.rstrip('/')}/{path}"
    return str(Path(base) / from_home(path))
