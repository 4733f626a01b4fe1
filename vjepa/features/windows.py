"""Windows of a video: parts of equal length that follow each other, as functions of seconds and timestamps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from vjepa.data import ShortVideoError
from vjepa.data.sampling import ROUNDING_SECONDS, usable_part
from vjepa.features.errors import FeaturesError

Tail = Literal["align", "drop"]
Short = Literal["repeat", "refuse"]

# limits of one request to a decoder: they bound memory, and the time below a decoder's limit of a minute
MAX_WINDOWS, MAX_FRAMES, MAX_SPAN = 8, 128, 1024
MIN_SECONDS = 1e-3  # of a window and a stride: less than a frame, and an hour has countable windows
GAP_FRAMES = 250  # usual distance of keyframes: beyond it seeking is cheaper than decoding what lies between


@dataclass(frozen=True)
class Windows:
    """Parts of a video, each `seconds` long, one every `stride` seconds (None: `seconds`).

    `tail` says what happens to a remainder at the end: "align" adds a window that ends with the video, "drop" leaves
    the remainder unused. `short` says what happens to a video shorter than a window: "repeat" makes it one window,
    whose last frame a clip repeats where it must; "refuse" raises `ShortVideoError`.
    """

    seconds: float
    stride: float | None = None
    tail: Tail = "drop"
    short: Short = "refuse"

    def __post_init__(self) -> None:
        if not (MIN_SECONDS <= self.seconds < math.inf and MIN_SECONDS <= self.step < math.inf):
            raise FeaturesError(
                f"window {self.seconds:g}, stride {self.step:g}: both are seconds, at least {MIN_SECONDS:g}."
            )

    @property
    def step(self) -> float:
        """Seconds from the start of one window to the start of the next."""
        return self.seconds if self.stride is None else self.stride

    def bounds(self, duration: float) -> list[tuple[float, float]]:
        """Return the start and the end of each window of a video, in seconds.

        Raises:
            ShortVideoError: If the video is shorter than a window and `short` is "refuse".

        >>> Windows(4.0, tail="align").bounds(10.0)
        [(0.0, 4.0), (4.0, 8.0), (6.0, 10.0)]
        >>> Windows(4.0, short="repeat").bounds(3.0)
        [(0.0, 3.0)]
        """
        if duration - self.seconds + ROUNDING_SECONDS < 0 and self.short == "refuse":
            raise ShortVideoError(
                f"{duration:.2f} s of video, a window is {self.seconds:g} s. Lower --window."
            )
        if duration <= self.seconds + ROUNDING_SECONDS:
            return [(0.0, duration)]
        count = int((duration - self.seconds + ROUNDING_SECONDS) // self.step) + 1
        bounds = [(i * self.step, i * self.step + self.seconds) for i in range(count)]
        if self.tail == "align" and bounds[-1][1] < duration - ROUNDING_SECONDS:
            bounds.append((duration - self.seconds, duration))
        return bounds

    def of(
        self, timestamps: Float64[ndarray, "n"], start: float | None = None, end: float | None = None
    ) -> list[tuple[float, float]]:
        """Return the start and the end of each window on the clock of the video.

        `start` and `end` (exclusive) are the seconds of the usable part, by default the whole video.

        Raises:
            ShortVideoError: As in `bounds`.
        """
        first, stop = usable_part(timestamps, start, end)
        part = timestamps[first:stop]
        last_shown = float(np.median(np.diff(part))) if len(part) > 1 else 0.0
        begin = float(part[0])
        return [
            (begin + low, begin + high) for low, high in self.bounds(float(part[-1]) - begin + last_shown)
        ]


def windows_of(seconds: float | None, stride: float | None, *, tail: Tail, short: Short) -> Windows | None:
    """Return the windows that flags ask for; None if they ask for none.

    Raises:
        FeaturesError: If there is a stride without a window.
    """
    if seconds is None and stride is not None:
        raise FeaturesError(f"stride {stride:g} without a window. Give its length with --window.")
    return None if seconds is None else Windows(seconds, stride, tail=tail, short=short)


def blocks(frames: Int64[ndarray, "w t"], first: int = 0) -> Iterator[range]:
    """Yield runs of neighbouring windows to decode together: they share frames or lie close, and are not too many.

    >>> [list(block) for block in blocks(np.array([[0, 4], [4, 8], [9000, 9004]]))]
    [[0, 1], [2]]
    """
    begin = first
    while begin < len(frames):
        end = begin + 1
        while end < len(frames) and end - begin < MAX_WINDOWS:
            together = frames[begin : end + 1]
            if (
                together.max() - together.min() > MAX_SPAN
                or frames[end].min() - frames[end - 1].max() > GAP_FRAMES
                or len(np.unique(together)) > MAX_FRAMES
            ):
                break
            end += 1
        yield range(begin, end)
        begin = end
