"""What a builder says of a data set, and where its files lie."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vjepa.data.manifests.folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vjepa.data.manifests.rows import ManifestError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class AnnotatedClip(NamedTuple):
    """One clip as annotated.

    `file` with a slash is a path below the root; without, it is the name of a video file less its suffix, or of a
    frame folder, wherever below the root that lies. `extra` are columns of this data set alone.
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
    """All that a data set's annotation says; `labels` in its own order, where it has one.

    `notes` are counts for the report.
    """

    clips: list[AnnotatedClip]
    labels: tuple[str, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)


class Sources(NamedTuple):
    """What a builder reads: the folder of the media, the annotation file or folder, the fold of official splits."""

    root: Path
    annotations: Path
    fold: int = 1


class Tree:
    """Where the video files and frame folders below a folder lie, by name; found in one walk that follows links.

    Args:
        root: the folder.
        images: index single images too.
    """

    def __init__(self, root: Path, *, images: bool = False) -> None:
        self._by_name: dict[str, list[str]] = {}
        self._paths: set[str] = set()
        kinds = VIDEO_SUFFIXES | (IMAGE_SUFFIXES if images else frozenset())
        walked: set[str] = set()
        for folder, folders, names in os.walk(root, followlinks=True):
            if (real := os.path.realpath(folder)) in walked:  # a link back up would have no end
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
        """Path of a clip below the root; of several, the first in a folder of the clip's split."""
        if "/" in clip.file:
            return clip.file if clip.file in self._paths else None
        found = self._by_name.get(clip.file, [])
        in_split = [
            p for p in found if clip.split in {SPLITS.get(part.lower()) for part in Path(p).parts[:-1]}
        ]
        return next(iter(in_split or found), None)


def find_annotation(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the named files in a folder or one floor down.

    Args:
        folder: where to look.
        names: file names or patterns, the likeliest first.
    """
    for name in names:
        for pattern in (name, f"*/{name}"):
            if found := sorted(folder.glob(pattern)):
                return found[0]
    return None


def need_annotation(folder: Path, names: Sequence[str]) -> Path:
    """As `find_annotation`, and an error that says what was looked for where there is none."""
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
        ManifestError: a column is missing, or a row is too short.
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
                    file, reader.line_num, f"fewer cells than the header's {len(header)}. Mend the line"
                )
            yield (
                reader.line_num,
                {k: v.strip() for k, v in row.items() if isinstance(k, str) and v is not None},
            )


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of each line that holds something."""
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def read_json(file: Path) -> Any:
    """Content of a JSON file.

    Raises:
        ManifestError: it is none.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as e:
        raise ManifestError(file, e.lineno, f"not JSON ({e.msg}). Download the file again") from e


def need_keys(file: Path, which: str, found: object, keys: Sequence[str]) -> None:
    """See that an entry of a JSON file is an object with the given keys.

    Raises:
        ManifestError: it is not.
    """
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise ManifestError(file, 0, f"{which}: no {missing[0]!r}. Give the official annotation file")


def split_of(file: Path, line: int, text: str) -> str:
    """`train`, `val` or `test`, from the words that annotations have for them.

    Raises:
        ManifestError: it is none of these words.
    """
    if text not in SPLITS:
        raise ManifestError(file, line, f"split {text!r} is none of {', '.join(SPLITS)}. Mend the line")
    return SPLITS[text]


def number(file: Path, line: int, column: str, text: str) -> float:
    """A number of an annotation.

    Raises:
        ManifestError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise ManifestError(file, line, f"{column} {text!r} is not a number. Mend the line") from None
