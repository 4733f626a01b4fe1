"""The choice of a clip's frames: pure functions of timestamps and a generator."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from vjepa.errors import SettingError, VjepaError

# Matroska rounds times to the millisecond: a frame at 66.67 ms may have the timestamp 67 ms
ROUNDING_SECONDS = 1e-3
# 29.97 fps counts as 30, but 30.01, measured from rounded timestamps, does not count as 31
ROUNDING_FPS = 0.02

Position = Literal["random", "centre", "start"]


class ShortVideoError(VjepaError, ValueError):
    """A video that is too short for a clip, with `short="error"`."""


@runtime_checkable
class FrameSampler(Protocol):
    """An object that chooses frames of a video; it raises `ShortVideoError` if there are too few."""

    def sample(
        self,
        timestamps: Float64[ndarray, "n"],
        generator: np.random.Generator,
        start: float | None = None,
        end: float | None = None,
    ) -> Int64[ndarray, "t"]: ...


def time_indices(
    timestamps: Float64[ndarray, "n"], start_seconds: float, fps: float, num_frames: int
) -> Int64[ndarray, "t"]:
    """Return the `num_frames` frames shown at `start_seconds + k / fps`; after the end of the video, the last frame.

    >>> time_indices(np.arange(50) / 25, start_seconds=0.0, fps=4.0, num_frames=5).tolist()
    [0, 6, 12, 18, 25]
    """
    wanted = start_seconds + np.arange(num_frames) / fps + ROUNDING_SECONDS
    shown = np.searchsorted(timestamps, wanted, side="right") - 1
    return np.clip(shown, 0, len(timestamps) - 1).astype(np.int64)


def reference_indices(
    num_frames_video: int,
    clip_frames: int,
    frame_step: int,
    num_clips: int = 1,
    *,
    allow_overlap: bool = False,
    random_start: Callable[[int, int], int] | None = None,
) -> Int64[ndarray, "c t"]:
    """Return frame indices by the rule of the released V-JEPA code, with all its quirks.

    Args:
        num_frames_video: Frames in the video.
        clip_frames: Frames in a clip.
        frame_step: Nominal step; the true spacing is `clip_frames * frame_step / (clip_frames - 1)`.
        num_clips: Number of clips, one from each equal part of the video.
        allow_overlap: Let the clips of a short video overlap instead of shortening them.
        random_start: `random_start(low, high)` draws from [low, high); None begins each part at its start.

    Returns:
        (num_clips, clip_frames) frame indices.

    >>> reference_indices(300, 16, 4)[0, :6].tolist()
    [0, 4, 8, 12, 17, 21]
    """
    clip_len, part = clip_frames * frame_step, num_frames_video // num_clips
    clips = []
    for i in range(num_clips):
        if part > clip_len:
            end = random_start(clip_len, part) if random_start else clip_len
            start = end - clip_len
            indices = (
                np.clip(np.linspace(start, end, clip_frames), start, end - 1).astype(np.int64) + i * part
            )
        elif not allow_overlap:
            indices = _padded_linspace(part, frame_step, clip_frames, part - 1) + i * part
        else:
            stop = min(clip_len, num_frames_video) - 1
            step = (num_frames_video - clip_len) // (num_clips - 1) if num_frames_video > clip_len else 0
            indices = _padded_linspace(stop, frame_step, clip_frames, stop - 1) + i * step
        clips.append(indices)
    return np.stack(clips)


def _padded_linspace(stop: int, frame_step: int, clip_frames: int, largest: int) -> Int64[ndarray, "t"]:
    spaced = np.linspace(0, stop, num=stop // frame_step)[:clip_frames]
    padded = np.concatenate([spaced, np.full(clip_frames - len(spaced), float(stop))])
    return np.clip(padded, 0, max(largest, 0)).astype(np.int64)


def reference_step(fps_video: float, fps: float) -> int:
    """Return the published code's integer step for `fps`: `ceil(fps_video) // fps`, 0 if the video is slower.

    >>> reference_step(29.97, 4.0)
    7
    """
    return int(math.ceil(fps_video - ROUNDING_FPS) // fps)


def usable_part(timestamps: Float64[ndarray, "n"], start: float | None, end: float | None) -> tuple[int, int]:
    """Return the first frame of the part of a video between two times, and the frame after its last.

    Raises:
        ShortVideoError: If the part has no frame.

    >>> usable_part(np.arange(10) / 10, start=0.2, end=0.5)
    (2, 5)
    """
    first, stop = (
        default if time is None else int(np.searchsorted(timestamps, time - ROUNDING_SECONDS, side="left"))
        for time, default in ((start, 0), (end, len(timestamps)))
    )
    if stop <= first:
        raise ShortVideoError(
            f"no frame between {start} and {end} seconds: the video goes from {timestamps[0]:.3f} to "
            f"{timestamps[-1]:.3f}. Correct start and end in the manifest."
        )
    return first, stop


def is_padded(indices: Int64[ndarray, "t"], part: tuple[int, int]) -> bool:
    """Return whether a clip repeats the last frame of `part`, see `usable_part`, because that is shorter than the clip.

    A part of one frame is an image, not a short video.

    >>> is_padded(np.array([0, 2, 4, 5, 5]), (0, 6)), is_padded(np.array([0, 0, 1, 1]), (0, 2))
    (True, False)
    """
    first, stop = part
    shown, counts = np.unique(indices, return_counts=True)
    return stop - first > 1 and int(shown[-1]) == stop - 1 and bool(counts[-1] > counts[:-1].max(initial=1))


class ClipSampler:
    """A rule that chooses the frames of a clip.

    Args:
        num_frames: Frames in a clip.
        fps: Frames per second of video, correct for any frame rate of the video; null takes every frame, or every
            frame_step-th.
        frame_step: Take every frame_step-th frame instead of a frame rate (set fps to null).
        rule: "time" follows the timestamps; "reference" is the published code's integer rule, for parity.
        short: Whether a video shorter than a clip repeats its last frame, or is an error.
        position: Position of the clip in the video.
    """

    def __init__(
        self,
        *,
        num_frames: int = 16,
        fps: float | None = 4.0,
        frame_step: int | None = None,
        rule: Literal["time", "reference"] = "time",
        short: Literal["repeat", "error"] = "repeat",
        position: Position = "random",
    ) -> None:
        if fps is not None and frame_step is not None:
            raise SettingError(f"fps {fps} and frame_step {frame_step} both given. Set one of them to null.")
        counts = [number for number in (num_frames, frame_step) if number is not None]
        if min(counts) < 1 or (fps is not None and not 0 < fps < math.inf):
            raise SettingError(
                f"num_frames {num_frames}, fps {fps}, frame_step {frame_step}: all must be finite numbers above 0 "
                "(or null)."
            )
        if rule == "reference" and position == "centre":
            raise SettingError("rule 'reference' has no position 'centre'. Use 'random' or 'start'.")
        self.num_frames = num_frames
        self.fps = fps
        self.frame_step = frame_step
        self.rule = rule
        self.short = short
        self.position = position

    def at(self, position: Position) -> ClipSampler:
        """Return the same sampler with its clips at `position`; the reference rule uses 'start' for 'centre'."""
        if self.rule == "reference" and position == "centre":
            position = "start"
        sampler = copy.copy(self)
        sampler.position = position
        return sampler

    def sample(
        self,
        timestamps: Float64[ndarray, "n"],
        generator: np.random.Generator,
        start: float | None = None,
        end: float | None = None,
    ) -> Int64[ndarray, "t"]:
        """Return the (num_frames,) frame indices of one clip.

        Args:
            timestamps: Time of each frame of the video in seconds, ascending.
            generator: Draws the clip's start if `position` is "random".
            start: Start of the usable part of the video in seconds (default: its beginning).
            end: End of that part in seconds, exclusive (default: its end).

        Raises:
            ShortVideoError: If the part is empty, or too short and `short` is "error".
        """
        first, stop = usable_part(timestamps, start, end)
        part = timestamps[first:stop]
        if self.rule == "reference":
            return first + self.reference_clips(part, generator)[0]
        if self.fps is not None:
            return first + self._by_time(part, generator)
        return first + self._by_step(len(part), generator)

    def _by_time(self, part: Float64[ndarray, "n"], generator: np.random.Generator) -> Int64[ndarray, "t"]:
        assert self.fps is not None
        last_seconds = float(np.median(np.diff(part))) if len(part) > 1 else 0.0
        span = (self.num_frames - 1) / self.fps
        room = float(part[-1] - part[0]) + last_seconds - 2 * ROUNDING_SECONDS - span
        if room < 0:
            self._check_short(
                f"{part[-1] - part[0] + last_seconds:.2f} s of video, a clip of {self.num_frames} "
                f"frames at {self.fps:g} fps spans {span:.2f} s",
                "Raise fps",
            )
        offset = max(room, 0.0) * {"start": 0.0, "centre": 0.5}.get(self.position, 0.0)
        if self.position == "random":
            offset = max(room, 0.0) * generator.random()
        # begin exactly at a frame: at the native rate no rounding can then skip one
        begin = part[time_indices(part, float(part[0]) + offset, self.fps, 1)[0]]
        return time_indices(part, float(begin), self.fps, self.num_frames)

    def _by_step(self, n: int, generator: np.random.Generator) -> Int64[ndarray, "t"]:
        step = self.frame_step or 1
        span = (self.num_frames - 1) * step + 1
        if n < span:
            self._check_short(
                f"{n} frames, a clip of {self.num_frames} at step {step} spans {span}", "Lower frame_step"
            )
        room = max(n - span, 0)
        offset = {"start": 0, "centre": room // 2}.get(self.position, 0)
        if self.position == "random":
            offset = int(generator.integers(room + 1))
        return np.minimum(offset + step * np.arange(self.num_frames, dtype=np.int64), n - 1)

    def span_frames(self, part: Float64[ndarray, "n"]) -> int:
        """Return the frames from the first to the last of a clip, at the mean frame rate of this part of a video."""
        if self.fps is None:
            return (self.num_frames - 1) * (self.frame_step or 1) + 1
        spacing = float(part[-1] - part[0]) / (len(part) - 1) if len(part) > 1 else 1 / self.fps
        return math.ceil((self.num_frames - 1) / self.fps / max(spacing, ROUNDING_SECONDS) + 1e-6) + 1

    def reference_clips(
        self, part: Float64[ndarray, "n"], generator: np.random.Generator, num_clips: int = 1
    ) -> Int64[ndarray, "c t"]:
        """Return clips by the published rule, one from each of `num_clips` equal parts of the usable frames `part`.

        They overlap if several do not fit one after the other. Their indices count from the first usable frame.
        """
        step = self.frame_step or 1
        if self.fps is not None:
            fps_video = (len(part) - 1) / float(part[-1] - part[0]) if len(part) > 1 else 0.0
            step = reference_step(fps_video, self.fps)
            if step == 0:
                raise ShortVideoError(
                    f"{fps_video:.2f} fps, slower than the requested {self.fps:g} fps: rule 'reference' cannot read "
                    "it. Lower fps or set rule='time'."
                )
        if len(part) < self.num_frames * step:
            self._check_short(
                f"{len(part)} frames, a clip of {self.num_frames} at step {step} spans "
                f"{self.num_frames * step}",
                "Lower frame_step or raise fps",
            )
        draw = (lambda low, high: int(generator.integers(low, high))) if self.position == "random" else None
        return reference_indices(
            len(part), self.num_frames, step, num_clips, allow_overlap=num_clips > 1, random_start=draw
        )

    def _check_short(self, what: str, advice: str) -> None:
        if self.short == "error":
            raise ShortVideoError(f"{what}. {advice}, lower num_frames, or set short='repeat'.")
