"""The faults of a data set, from its manifest and the records of its files; no file is opened here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from vjepa.data.audit.examine import FileRecord, PartRecord
from vjepa.data.manifests.rows import Manifest, ManifestRow
from vjepa.data.sampling import ROUNDING_SECONDS
from vjepa.errors import SettingError
from vjepa.types import ClipFailure

Kind = Literal[
    "broken",
    "truncated",
    "hung",
    "empty",
    "short",
    "repeated",
    "unusual",
    "variable",
    "odd_fps",
    "duplicate",
    "leak",
]
UNUSABLE: tuple[Kind, ...] = ("broken", "truncated", "hung", "empty", "short")  # these go in the quarantine
SHARED_FPS = 0.9  # if this share of the files has one frame rate, another rate is odd
FEW_CLIPS = 10  # a class with fewer clips is listed


@dataclass(frozen=True)
class Finding:
    """A fault of a file, or of the manifest's row with this `start` and `end`."""

    kind: Kind
    path: str
    reason: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClipNeeds:
    """The requirements of a recipe's clip; by default there are none.

    Args:
        num_frames: Frames in a clip.
        fps: Frames per second of a clip; None takes every frame.
        min_seconds: Shortest accepted video.
    """

    num_frames: int = 1
    fps: float | None = None
    min_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.num_frames < 1 or (self.fps is not None and self.fps <= 0) or self.min_seconds < 0:
            raise SettingError(
                f"num_frames {self.num_frames}, fps {self.fps}, min_seconds {self.min_seconds:g}: the first two must "
                "be above 0, the last at least 0. Omit what must not be checked."
            )

    def lacking(self, part: PartRecord) -> str:
        """Return why `part` is too short by the rule of `ClipSampler`, or "" if it is long enough.

        >>> ClipNeeds(num_frames=16, fps=4.0).lacking(PartRecord(50, 1.96, 0.04))
        '2.00 s of video, a clip of 16 frames at 4 fps spans 3.75 s'
        """
        seconds = part.seconds + part.gap
        if self.fps is None:
            if part.num_frames < self.num_frames:
                return f"{part.num_frames} frames, a clip has {self.num_frames}"
        else:
            span = (self.num_frames - 1) / self.fps
            if seconds - 2 * ROUNDING_SECONDS - span < 0:
                return (
                    f"{seconds:.2f} s of video, a clip of {self.num_frames} frames at {self.fps:g} fps "
                    f"spans {span:.2f} s"
                )
        if seconds < self.min_seconds:
            return f"{seconds:.2f} s of video, at least {self.min_seconds:g} are required"
        return ""


RECIPE, RECIPE_NEEDS = "configs/folder.yaml", ClipNeeds(num_frames=16, fps=8.0)


@dataclass(frozen=True)
class AuditReport:
    """The content of a manifest's files, by path, and their faults.

    `num_padded` rows are too short for a clip of RECIPE, which repeats their last frame.
    """

    manifest: Manifest
    files: Mapping[str, FileRecord]
    findings: tuple[Finding, ...] = field(default=())
    num_padded: int = 0

    def of_kind(self, *kinds: Kind) -> tuple[ClipFailure, ...]:
        """Return the findings of these kinds, with path and reason."""
        return tuple(ClipFailure(found.path, found.reason) for found in self.findings if found.kind in kinds)

    @property
    def broken(self) -> tuple[ClipFailure, ...]:
        """Files that could not be decoded to their end."""
        return self.of_kind("broken", "truncated", "hung")

    @property
    def empty(self) -> tuple[ClipFailure, ...]:
        """Rows whose part of the video, from `start` to `end`, has no frame."""
        return self.of_kind("empty")

    @property
    def repeated(self) -> tuple[ClipFailure, ...]:
        """Rows with the same part of the same file as an earlier row."""
        return self.of_kind("repeated")

    @property
    def num_files(self) -> int:
        return len(self.files)

    @property
    def num_frames(self) -> int:
        return sum(file.num_frames for file in self.files.values())

    @property
    def seconds(self) -> float:
        return sum((file.seconds for file in self.files.values()), 0.0)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of files of each size, width first."""
        counts = Counter(f"{file.size[0]} x {file.size[1]}" for file in self.readable)
        return dict(counts.most_common())

    @property
    def readable(self) -> list[FileRecord]:
        """Files that could be decoded to their end."""
        return [file for file in self.files.values() if not file.reason]

    @property
    def labels(self) -> dict[str, int]:
        """The number of clips per label, and of clips without a label."""
        names = self.manifest.label_names
        counts = Counter(row.label for row in self.manifest.rows)
        unlabelled = {"(none)": counts[-1]} if counts[-1] else {}
        return unlabelled | {name: counts[i] for i, name in enumerate(names)}

    def figures(self) -> dict[str, Any]:
        """Return all figures by name, for `result.json`."""
        kinds = Counter(found.kind for found in self.findings)
        classes = {name: count for name, count in self.labels.items() if name != "(none)"}
        return {
            "found": self.manifest.describe(),
            "num_clips": len(self.manifest),
            "num_files": self.num_files,
            "num_broken": len(self.broken),
            "num_truncated": kinds["truncated"],
            "num_hung": kinds["hung"],
            "num_frames": self.num_frames,
            "seconds": self.seconds,
            "sizes": self.sizes,
            "labels": self.labels,
            "class_balance": max(classes.values()) / max(min(classes.values()), 1) if classes else None,
            "small_classes": {name: count for name, count in classes.items() if count < FEW_CLIPS},
            "num_empty": kinds["empty"],
            "num_short": kinds["short"],
            "num_repeated": kinds["repeated"],
            "num_unusual": kinds["unusual"],
            "padded": {
                "recipe": RECIPE,
                "num_frames": RECIPE_NEEDS.num_frames,
                "fps": RECIPE_NEEDS.fps,
                "num_clips": self.num_padded,
                "share": self.num_padded / max(len(self.manifest), 1),
            },
            "num_variable_fps": kinds["variable"],
            "num_odd_fps": kinds["odd_fps"],
            "num_duplicates": kinds["duplicate"],
            "num_leaks": kinds["leak"],
            **{kind: _listed(self.of_kind(kind)) for kind in ("empty", "repeated", "duplicate", "leak")},
            "broken": _listed(self.broken),
        }


def _listed(failures: Iterable[ClipFailure]) -> list[dict[str, str]]:
    return [{"path": failure.path, "reason": failure.reason} for failure in failures]


def of_files(files: Mapping[str, FileRecord], ended: set[str], needs: ClipNeeds) -> Iterator[Finding]:
    """Find files that cannot be read, or whose frame rate is uneven or differs from the others'.

    Decoding of the files in `ended` hung or crashed.
    """
    for path, file in files.items():
        if path in ended:
            yield Finding("hung", path, file.reason)
        elif file.reason:
            yield Finding("truncated" if file.reason.startswith("truncated") else "broken", path, file.reason)
            continue
        if file.note:
            yield Finding("unusual", path, file.note)
        if file.uneven:
            yield Finding(
                "variable",
                path,
                f"variable frame rate: {file.uneven} of {file.num_frames - 1} gaps between frames differ from "
                f"{file.gap:.3f} s by more than a tenth, the longest is {file.longest_gap:.3f} s",
            )
    rates = {path: round(1 / file.gap, 1) for path, file in files.items() if file.gap}
    shared, count = Counter(rates.values()).most_common(1)[0] if rates else (0.0, 0)
    for path, rate in rates.items():
        if needs.fps is not None and rate < round(needs.fps, 1):
            yield Finding(
                "odd_fps", path, f"{rate:g} frames per second, a clip takes {needs.fps:g}: some repeat"
            )
        elif needs.fps is None and rate != shared and count >= SHARED_FPS * len(rates):
            reason = f"{rate:g} frames per second, {count} of {len(rates)} files have {shared:g}"
            yield Finding("odd_fps", path, reason)


def of_rows(
    manifest: Manifest, parts: Mapping[ManifestRow, PartRecord], needs: ClipNeeds
) -> Iterator[Finding]:
    """Find rows without a frame, too short for a clip, or repeated; `parts` has the rows whose file can be read."""
    first: dict[tuple[str, float | None, float | None], ManifestRow] = {}
    for row in manifest.rows:
        where = f"line {row.line}: " if row.line else ""
        part = parts.get(row)
        if part is not None and not part.num_frames:
            yield Finding("empty", row.path, f"{where}no frame {_bounds(row)}", row.start, row.end)
        elif part is not None and (lacking := needs.lacking(part)):
            yield Finding("short", row.path, where + lacking, row.start, row.end)
        earlier = first.setdefault((row.path, row.start, row.end), row)
        if earlier is not row:
            other = " with another label" if row.label != earlier.label else ""
            reason = f"line {row.line} repeats line {earlier.line}{other}"
            yield Finding("repeated", row.path, reason, row.start, row.end)


def _bounds(row: ManifestRow) -> str:
    return f"from {row.start or 0:g} to {'its end' if row.end is None else f'{row.end:g}'} seconds"


def duplicates(files: Mapping[str, FileRecord]) -> Iterator[Finding]:
    """Find files with the same frames as an earlier file: copies, also in another container.

    A video that was encoded again, scaled or cropped has other pixels and is not found.
    """
    first: dict[str, str] = {}
    for path, file in files.items():
        if file.content and first.setdefault(file.content, path) != path:
            yield Finding("duplicate", path, f"all frames are those of {first[file.content]}")


def leaks(rows: Iterable[tuple[str, ManifestRow]], files: Mapping[str, FileRecord]) -> Iterator[Finding]:
    """Find files, frames and groups that are in more than one split; `rows` come with the names of their splits."""
    found: list[tuple[str, str, str, ManifestRow]] = []
    for split, row in rows:
        content = files[row.path].content or row.path
        found.append(("the same video", content, split, row))
        if row.group:
            found.append((f"group {row.group!r}", row.group, split, row))
    found.sort(key=lambda entry: entry[:2])
    for (what, _), entries in groupby(found, key=lambda entry: entry[:2]):
        places: dict[str, ManifestRow] = {}
        for _, _, split, row in entries:
            places.setdefault(split, row)
        if len(places) > 1:
            listed = ", ".join(f"{split} ({row.path}, line {row.line})" for split, row in places.items())
            yield Finding("leak", next(iter(places.values())).path, f"{what} is in {listed}")
