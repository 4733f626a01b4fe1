"""The annotation of a data set as a builder reads it, and the places of the data set's files."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vjepa.data.manifests.rows import ManifestError
from vjepa.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vjepa.readers import parse_json

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class AnnotatedClip(NamedTuple):
    """One clip in an annotation.

    `file` with a slash is a path below the root. Without a slash, it is the name of a video file without its suffix,
    or of a frame folder, anywhere below the root. `extra` are columns of this data set alone.
    """

    split: str
    file: str
    label: str = ""
    group: str = ""
    start: float | None = None
    end: float | None = None
    pair: str = ""
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Annotated:
    """The annotation of a data set; `labels` are in its own order, if it has one, and `notes` count for the report."""

    clips: list[AnnotatedClip]
    labels: tuple[str, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)


class Sources(NamedTuple):
    """The input of a builder: the folder of the media, the annotation file or folder, the fold of official splits."""

    root: Path
    annotations: Path
    fold: int = 1


class Tree:
    """An index by name of the video files, frame folders and, with `images`, single images; it follows links."""

    def __init__(self, root: Path, *, images: bool = False) -> None:
        self._by_name: dict[str, list[str]] = {}
        self._paths: set[str] = set()
        kinds = VIDEO_SUFFIXES | (IMAGE_SUFFIXES if images else frozenset())
        walked: set[str] = set()
        for folder, folders, names in os.walk(root, followlinks=True):
            if (real := os.path.realpath(folder)) in walked:  # a link to a parent would have no end
                folders.clear()
                continue
            walked.add(real)
            folders.sort()
            below = Path(folder).relative_to(root)
            if any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in names):
                self._add(below.name, below.as_posix())
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in kinds:
                    self._add(stem, (below / name).as_posix())

    def _add(self, name: str, path: str) -> None:
        self._by_name.setdefault(name, []).append(path)
        self._paths.add(path)

    def find(self, clip: AnnotatedClip) -> str | None:
        """Return the path of a clip below the root; if there are several, the first in a folder of the clip's split."""
        if "/" in clip.file:
            return clip.file if clip.file in self._paths else None
        found = self._by_name.get(clip.file, [])
        in_split = [
            p for p in found if clip.split in {SPLITS.get(part.lower()) for part in Path(p).parts[:-1]}
        ]
        return next(iter(in_split or found), None)


def find_annotation(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the named files, or patterns, in a folder or one folder down, or `None`."""
    for name in names:
        for pattern in (name, f"*/{name}"):
            if found := sorted(folder.glob(pattern)):
                return found[0]
    return None


def need_annotation(folder: Path, names: Sequence[str]) -> Path:
    """Return the result of `find_annotation`; raise an error with the names if there is none."""
    found = find_annotation(folder, names)
    if found is None:
        raise ManifestError(
            folder,
            0,
            f"none of {', '.join(names)} here or one folder down. Give the folder that holds it: --annotations DIR",
        )
    return found


def read_table(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and cells of each row of a CSV file with a header.

    Raises:
        ManifestError: If a column is missing, or a row is too short.
    """
    with file.open(newline="", encoding="utf-8-sig") as opened:
        reader = csv.DictReader(opened)
        header = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        for column in columns:
            if column not in header:
                raise ManifestError(
                    file,
                    1,
                    f"missing column {column!r}; found {', '.join(header)}. Give the official annotation file",
                )
        for row in reader:
            if any(row[column] is None for column in columns):
                raise ManifestError(
                    file, reader.line_num, f"fewer cells than the header's {len(header)}. Correct the line"
                )
            yield (
                reader.line_num,
                {k: v.strip() for k, v in row.items() if isinstance(k, str) and v is not None},
            )


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each line that is not blank."""
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def read_json(file: Path) -> Any:
    """Return the content of a JSON file; raise `FileError` if it is not JSON."""
    return parse_json(file.read_bytes(), file)


def need_keys(file: Path, which: str, found: object, keys: Sequence[str]) -> None:
    """Raise `ManifestError` if an entry of a JSON file is not an object with the given keys."""
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise ManifestError(file, 0, f"{which}: no {missing[0]!r}. Give the official annotation file")


def split_of(file: Path, line: int, text: str) -> str:
    """Return `train`, `val` or `test` for a word that annotations use for it; raise `ManifestError` for another."""
    if text not in SPLITS:
        raise ManifestError(file, line, f"split {text!r} is not one of {', '.join(SPLITS)}. Correct the line")
    return SPLITS[text]


def number(file: Path, line: int, column: str, text: str) -> float:
    """Parse a number of an annotation; raise `ManifestError` for another text."""
    try:
        return float(text)
    except ValueError:
        raise ManifestError(file, line, f"{column} {text!r} is not a number. Correct the line") from None
