"""Windows of long videos: parts that follow each other, each named by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vjepa.data.decoders.readable_prefix import UpToDamage
from vjepa.data.manifests.rows import ManifestRow
from vjepa.errors import DecodeError
from vjepa.probes.base import ProbeError
from vjepa.types import ClipFailure

SAME_SECONDS = 1e-3  # timestamps of containers are rounded to the millisecond


def window_bounds(duration: float, *, window: float, stride: float) -> list[tuple[float, float]]:
    """Begin and end of each window in seconds. The last one ends with the video; a short video is one window.

    >>> window_bounds(10.0, window=4.0, stride=4.0)
    [(0.0, 4.0), (4.0, 8.0), (6.0, 10.0)]
    >>> window_bounds(3.0, window=4.0, stride=4.0)
    [(0.0, 3.0)]
    """
    if duration <= window + SAME_SECONDS:
        return [(0.0, duration)]
    count = int((duration - window + SAME_SECONDS) // stride) + 1
    bounds = [(i * stride, i * stride + window) for i in range(count)]
    if bounds[-1][1] < duration - SAME_SECONDS:
        bounds.append((duration - window, duration))
    return bounds


@dataclass
class WindowRows:
    """A row for each window: of `whole` videos, and of those that lack their end, which `CUT_OFF` reads.

    `failures` are the latter, and those of which nothing can be read.
    """

    whole: list[ManifestRow] = field(default_factory=list)
    cut_off: list[ManifestRow] = field(default_factory=list)
    failures: list[ClipFailure] = field(default_factory=list)


def window_rows(videos: Sequence[str], *, window: float, stride: float | None, decoder: str) -> WindowRows:
    """The windows of videos.

    Args:
        videos: Video files.
        window: Seconds of a window.
        stride: Seconds from the beginning of one to that of the next (default: `window`).
        decoder: Backend that reads the videos.

    Raises:
        ProbeError: If a length is not above 0.
    """
    stride = window if stride is None else stride
    if min(window, stride) <= 0:
        raise ProbeError(f"window {window:g}, stride {stride:g} seconds: give lengths above 0.")
    found, opening = WindowRows(), UpToDamage(decoder)
    for path in videos:
        try:
            with opening.open(path) as opened:
                shown, failure = opened.video.timestamps, opened.failure
        except DecodeError as error:
            found.failures.append(ClipFailure(path=path, reason=error.reason))
            continue
        found.failures += [failure] if failure else []
        first, frame = float(shown[0]), float(np.median(np.diff(shown))) if len(shown) > 1 else 0.0
        bounds = window_bounds(float(shown[-1]) - first + frame, window=window, stride=stride)
        rows = [ManifestRow(path, start=first + low, end=first + high) for low, high in bounds]
        (found.cut_off if failure else found.whole).extend(rows)
    return found
