"""Decode every clip source once, and tell what is broken and what the rest looks like."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vjepa.data.decoders.base import DecodeError, Decoder, decoder_class
from vjepa.data.manifest import Manifest, ManifestRow, read_manifest
from vjepa.data.remote import open_video
from vjepa.report import Report
from vjepa.types import ClipFailure

FRAMES_AT_ONCE = 64  # bounds the memory that a long video takes


@dataclass(frozen=True)
class AuditReport:
    """What a manifest's files hold; `broken` lists those that could not be decoded to their end.

    `empty` lists the rows whose part of the video, from `start` to `end`, holds no frame; `repeated` those that
    name the same part of the same file as a row before them.
    """

    manifest: Manifest
    broken: tuple[ClipFailure, ...]
    num_files: int
    num_frames: int
    seconds: float
    sizes: dict[str, int] = field(default_factory=dict)
    empty: tuple[ClipFailure, ...] = ()
    repeated: tuple[ClipFailure, ...] = ()

    @property
    def labels(self) -> dict[str, int]:
        """How many clips each label has."""
        names = self.manifest.label_names
        counts = Counter(row.label for row in self.manifest.rows)
        return {names[i] if i >= 0 else "(none)": counts[i] for i in sorted(counts)}

    def figures(self) -> dict[str, object]:
        """All of it by name, for `result.json`."""
        return {
            "found": self.manifest.describe(),
            "num_clips": len(self.manifest),
            "num_files": self.num_files,
            "num_broken": len(self.broken),
            "num_frames": self.num_frames,
            "seconds": self.seconds,
            "sizes": self.sizes,
            "labels": self.labels,
            "num_empty": len(self.empty),
            "num_repeated": len(self.repeated),
            "broken": [{"path": b.path, "reason": b.reason} for b in self.broken],
            "empty": [{"path": b.path, "reason": b.reason} for b in self.empty],
            "repeated": [{"path": b.path, "reason": b.reason} for b in self.repeated],
        }


def check(source: str | Path, *, root: str | Path | None = None, decoder: str = "auto") -> AuditReport:
    """Decode every frame of every file of a manifest, each file once.

    Args:
        source: a manifest, folder or video, as for `read_manifest`.
        root: folder that relative paths start from.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a `Decoder`.

    Raises:
        ManifestError: if the manifest itself is wrong.
    """
    manifest = read_manifest(source, root=root)
    backend = decoder_class(decoder)
    broken: list[ClipFailure] = []
    sizes: Counter[str] = Counter()
    num_frames, seconds = 0, 0.0
    rows: dict[str, list[ManifestRow]] = {}
    for row in manifest.rows:
        rows.setdefault(row.path, []).append(row)
    empty: list[ClipFailure] = []
    for path in rows:
        try:
            with open_video(backend, path) as video:
                sizes[_decode_all(video)] += 1
                num_frames += video.num_frames
                seconds += video.num_frames / video.fps if video.fps else 0.0
                empty += [
                    ClipFailure(path=path, reason=f"line {row.line}: no frame {_part(row)}")
                    for row in rows[path]
                    if not _frames_in(row, video.timestamps)
                ]
        except DecodeError as e:
            broken.append(ClipFailure(path=path, reason=e.reason))
    return AuditReport(
        manifest,
        tuple(broken),
        len(rows),
        num_frames,
        seconds,
        dict(sizes.most_common()),
        tuple(empty),
        tuple(_repeated(manifest)),
    )


def _frames_in(row: ManifestRow, timestamps: Float64[np.ndarray, "n"]) -> int:
    start = float("-inf") if row.start is None else row.start
    end = float("inf") if row.end is None else row.end
    return int(((timestamps >= start) & (timestamps < end)).sum())


def _part(row: ManifestRow) -> str:
    return f"from {row.start or 0:g} to {'its end' if row.end is None else f'{row.end:g}'} seconds"


def _repeated(manifest: Manifest) -> list[ClipFailure]:
    """Rows that come again, with the line of the first and whether their labels differ."""
    first: dict[tuple[str, float | None, float | None], ManifestRow] = {}
    again: list[ClipFailure] = []
    for row in manifest.rows:
        earlier = first.setdefault((row.path, row.start, row.end), row)
        if earlier is not row:
            other = " with another label" if row.label != earlier.label else ""
            again.append(
                ClipFailure(path=row.path, reason=f"line {row.line} repeats line {earlier.line}{other}")
            )
    return again


def _decode_all(video: Decoder) -> str:
    """Decode every frame; the video's size as "64 x 48" (width first)."""
    size = ""
    for start in range(0, video.num_frames, FRAMES_AT_ONCE):
        frames = video.frames_at(list(range(start, min(start + FRAMES_AT_ONCE, video.num_frames))))
        size = f"{frames.shape[3]} x {frames.shape[2]}"
    return size


def check_command(
    *, source: str, out: Path | None = None, root: str | None = None, decoder: str = "auto"
) -> Report:
    """Decode every clip of a manifest once and list what is broken.

    Args:
        source: Manifest, folder or video.
        out: Folder for result.json and quarantine.csv, the list of broken files with their reasons.
        root: Folder that relative paths in the manifest start from.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a decoder of your own.
    """
    report = check(source, root=root, decoder=decoder)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with (out / "quarantine.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "reason"])
            writer.writerows((b.path, b.reason) for b in report.broken)
    listed = (*report.broken, *report.empty, *report.repeated)
    rows = [{"path": b.path, "reason": b.reason} for b in listed]
    title = (
        f"{len(report.broken)} broken files, {len(report.empty)} rows without a frame, "
        f"{len(report.repeated)} rows repeated"
    )
    return Report(title=title, rows=rows, figures=report.figures())
