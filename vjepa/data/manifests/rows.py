"""The rows of a manifest, kept in columns: a million of them in tens of megabytes, each made when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from vjepa.data.remote import is_url
from vjepa.errors import VjepaError

NO_LABEL = -1


class ManifestError(VjepaError, ValueError):
    """A manifest that cannot be used: which file, which line, what is wrong."""

    def __init__(self, file: str | Path, line: int, reason: str) -> None:
        super().__init__(str(file), line, reason)
        self.file = str(file)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


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

    `kind` and `source` say what was read, `base` is the folder that relative paths start from.
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
        """One line that says what was found.

        >>> Manifest((ManifestRow("a.mp4"),), (), "one video", "a.mp4").describe()
        '1 clip, no labels, from one video a.mp4'
        """
        clips = f"{len(self.rows):,} clip{'s' * (len(self.rows) != 1)}"
        count = len(self.label_names)
        classes = f"{count:,} class{'es' * (count != 1)}" if count else "no labels"
        return f"{clips}, {classes}, from {self.kind} {self.source}"

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
        """From strings."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        return cls(b"".join(encoded), np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded))))

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Several, one after the other."""
        shifts = np.cumsum([0, *(len(part.block) for part in parts)])
        ends = [part.ends + shift for part, shift in zip(parts, shifts, strict=False)]
        return cls(b"".join(part.block for part in parts), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return self.block[start : int(self.ends[index])].decode("utf-8", "surrogateescape")

    def encoded(self) -> Iterator[bytes]:
        """Each string as UTF-8, in order."""
        start = 0
        for end in self.ends.tolist():
            yield self.block[start:end]
            start = end

    def take(self, index: Int64[ndarray, "k"]) -> Texts:
        """Those of the given numbers, in that order."""
        return Texts.of([self[i] for i in index.tolist()])


@dataclass(frozen=True, eq=False)
class Rows(Sequence[ManifestRow]):
    """The rows as columns: paths as written, joined to the folder `base` when a row is asked for.

    NaN stands for a `start` or `end` that is not given.
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
        """From rows; their paths are kept as they are."""
        columns = list(zip(*rows, strict=True)) or [()] * len(ManifestRow._fields)
        given = dict(zip(ManifestRow._fields, columns, strict=True))
        return cls(
            base="",
            path=Texts.of(given["path"]),
            label=np.array(given["label"], np.int64),
            start=np.array(given["start"], np.float64),  # None becomes NaN
            end=np.array(given["end"], np.float64),
            group=Texts.of(given["group"]),
            weight=np.array(given["weight"], np.float64),
            line=np.array(given["line"], np.int64),
            pair=Texts.of(given["pair"]),
            split=Texts.of(given["split"]),
        )

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
        """Path of a row, from `base` on."""
        return joined(self.base, self.path[index])

    def take(self, index: Int64[ndarray, "k"]) -> Rows:
        """The rows of the given numbers, in that order."""
        return Rows(
            base=self.base,
            path=self.path.take(index),
            label=self.label[index],
            start=self.start[index],
            end=self.end[index],
            group=self.group.take(index),
            weight=self.weight[index],
            line=self.line[index],
            pair=self.pair.take(index),
            split=self.split.take(index),
        )


def joined(base: str, path: str) -> str:
    """`path` below the folder `base`; a URL, and a path without a base, stays as it is written."""
    if not base or is_url(path):
        return path
    if is_url(base):
        return f"{base.rstrip('/')}/{path}"
    return str(Path(base) / (Path(path).expanduser() if path.startswith("~") else path))
