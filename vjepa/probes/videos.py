"""Classification of video files: as a whole, or window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from vjepa.data.decoders.readable_prefix import TRUNCATED, ReadablePrefix
from vjepa.data.manifests.folders import listing
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import Manifest, ManifestRow
from vjepa.errors import DecodeError
from vjepa.features.windows import Windows
from vjepa.probes.base import ProbeError
from vjepa.probes.classifier import Classifier
from vjepa.types import ClipFailure


@dataclass
class ClassifiedVideos:
    """The rows of each video (one per window) with their class probabilities, and what failed."""

    videos: list[str]
    windows: dict[str, list[tuple[ManifestRow, Float[Tensor, "classes"]]]] = field(default_factory=dict)
    failures: list[ClipFailure] = field(default_factory=list)

    def add(self, classifier: Classifier, rows: list[ManifestRow], *, batch_size: int, decoder: str) -> None:
        """Classify rows."""
        if not rows:
            return
        manifest = Manifest(rows=tuple(rows), label_names=(), kind="videos", source="the list")
        for batch, found in classifier.classified(manifest, batch_size=batch_size, decoder=decoder):
            self.failures += batch.failures
            for index, probabilities in zip(batch.index.tolist(), found, strict=True):
                self.windows.setdefault(rows[index].path, []).append((rows[index], probabilities))


@dataclass
class WindowRows:
    """A row for each window: of `complete` videos, and of `truncated` ones, which `TRUNCATED` reads.

    `failures` are the truncated videos and those of which nothing can be read.
    """

    complete: list[ManifestRow] = field(default_factory=list)
    truncated: list[ManifestRow] = field(default_factory=list)
    failures: list[ClipFailure] = field(default_factory=list)


def window_rows(videos: Sequence[str], windows: Windows, *, decoder: str) -> WindowRows:
    """Return the windows of videos."""
    found, opening = WindowRows(), ReadablePrefix(decoder)
    for path in videos:
        try:
            with opening.open(path) as opened:
                shown, failure = opened.video.timestamps, opened.failure
        except DecodeError as error:
            found.failures.append(ClipFailure(path=path, reason=error.reason))
            continue
        found.failures += [failure] if failure else []
        rows = [ManifestRow(path, start=start, end=end) for start, end in windows.of(shown)]
        (found.truncated if failure else found.complete).extend(rows)
    return found


def classify_videos(
    classifier: Classifier, videos: Sequence[str], *, windows: Windows | None, batch_size: int, decoder: str
) -> ClassifiedVideos:
    """Classify videos, or the windows of each.

    Raises:
        ProbeError: If none can be read.
    """
    files = _files(videos)
    rows = WindowRows(complete=[ManifestRow(file) for file in files])
    if windows is not None:
        rows = window_rows(files, windows, decoder=decoder)
    found = ClassifiedVideos(files, failures=rows.failures)
    found.add(classifier, rows.complete, batch_size=batch_size, decoder=decoder)
    found.add(classifier, rows.truncated, batch_size=batch_size, decoder=TRUNCATED)
    if not found.windows:
        reasons = "; ".join(f"{f.path} ({f.reason})" for f in found.failures)
        raise ProbeError(f"none of the {len(files)} clips of the list can be read: {reasons}.")
    return found


def _files(videos: Sequence[str]) -> list[str]:
    """Return the videos, with those of a folder in its place."""
    found: list[str] = []
    for video in videos:
        holds_videos = Path(video).is_dir() and listing(Path(video)).content != "images"
        found += [row.path for row in read_manifest(video).rows] if holds_videos else [video]
    return found
