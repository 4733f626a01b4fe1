"""Which frames the windows of a video are made of: functions of timestamps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from vjepa.data import ClipSampler, ShortVideoError
from vjepa.data.sampling import ROUNDING_SECONDS, time_indices, usable_part
from vjepa.extraction.errors import ExtractionError

# what one request to a decoder may ask for: it bounds memory, and time below a decoder's limit of a minute
MAX_WINDOWS, MAX_FRAMES, MAX_SPAN = 8, 128, 1024
GAP_FRAMES = 250  # usual distance of keyframes: beyond it seeking is cheaper than decoding what lies between


@dataclass(frozen=True)
class Windows:
    """How a video is cut: one clip from its middle, or windows of equal length from its start to its end.

    `num_frames` of a window; `fps` of the clip from the middle (None: every frame); `window` and `stride` in
    seconds, both None for that clip.
    """

    num_frames: int
    fps: float | None = None
    window: float | None = None
    stride: float | None = None

    @classmethod
    def of(
        cls,
        *,
        native_frames: int,
        num_frames: int | None,
        fps: float | None,
        window: float | None,
        stride: float | None,
    ) -> Windows:
        """What was asked for, checked.

        Args:
            native_frames: Frames of a clip where nothing else is said.
            num_frames: Frames of a clip.
            fps: Frames of a clip a second of video.
            window: Seconds of a window.
            stride: Seconds from one window to the next (default: `window`).

        Raises:
            ExtractionError: If they contradict each other.

        >>> Windows.of(native_frames=16, num_frames=None, fps=8.0, window=4.0, stride=None).num_frames
        32
        """
        if window is None:
            if stride is not None:
                raise ExtractionError(f"stride {stride:g} without a window. Give --window SECONDS, too.")
            return cls(num_frames or native_frames, fps)
        stride = window if stride is None else stride
        if window <= 0 or stride <= 0:
            raise ExtractionError(f"window {window:g}, stride {stride:g}: both are seconds above 0.")
        if fps is not None and num_frames is not None:
            raise ExtractionError(
                f"window {window:g}, fps {fps:g} and num_frames {num_frames}: two of them give the third. "
                "Leave fps or num_frames out."
            )
        frames = max(1, round(window * fps)) if fps is not None else num_frames or native_frames
        return cls(frames, None, window, stride)

    @property
    def is_one(self) -> bool:
        """Whether each video gives one clip."""
        return self.window is None

    def frames(
        self, timestamps: Float64[ndarray, "n"], start: float | None = None, end: float | None = None
    ) -> Int64[ndarray, "w t"]:
        """Frame numbers of each window of the part of a video from `start` to `end`.

        Only whole windows are taken: what is left at the end, shorter than a window, is in none.

        Raises:
            ShortVideoError: If not one window fits.
        """
        if self.window is None or self.stride is None:
            sampler = ClipSampler(num_frames=self.num_frames, fps=self.fps, position="centre")
            return sampler.sample(timestamps, np.random.default_rng(0), start, end)[None]
        first, stop = usable_part(timestamps, start, end)
        part = timestamps[first:stop]
        last_shown = float(np.median(np.diff(part))) if len(part) > 1 else 0.0
        seconds = float(part[-1] - part[0]) + last_shown
        count = int((seconds - self.window + ROUNDING_SECONDS) // self.stride) + 1
        if count < 1:
            raise ShortVideoError(f"{seconds:.2f} s of video, a window is {self.window:g} s. Lower --window.")
        rate = self.num_frames / self.window
        starts = float(part[0]) + np.arange(count) * self.stride
        return first + np.stack([time_indices(part, float(s), rate, self.num_frames) for s in starts])


def blocks(frames: Int64[ndarray, "w t"], first: int = 0) -> Iterator[range]:
    """Windows that are decoded together, in order: neighbours, that share frames or lie close, and not too many.

    Args:
        frames: Frame numbers of all windows.
        first: The first window wanted.

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
