"""Several clips of one video, for evaluation: segments one after the other, and views side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.sampling import ClipSampler, usable_part
from vjepa.data.transforms.fixed_point import resize_fixed_point
from vjepa.data.transforms.video import IMAGENET_MEAN, IMAGENET_STD, normalise
from vjepa.errors import SettingError


@dataclass(kw_only=True, eq=False)
class SegmentSampler:
    """A sampler of one clip from each of several equal parts of a video, joined along the frame axis.

    Args:
        sampler: Chooses a clip in each part. With the time rule, if a part is shorter than a clip, the clips overlap
            and are spread evenly from start to end. With the reference rule they overlap as published.
        num_segments: Number of parts.
    """

    sampler: ClipSampler
    num_segments: int

    def __post_init__(self) -> None:
        if self.num_segments < 1:
            raise SettingError(f"num_segments {self.num_segments}: give at least 1.")

    def sample(
        self,
        timestamps: Float64[ndarray, "n"],
        generator: np.random.Generator,
        start: float | None = None,
        end: float | None = None,
    ) -> Int64[ndarray, "st"]:
        """Return (num_segments * num_frames,) frame indices; arguments and errors of `ClipSampler.sample`."""
        first, stop = usable_part(timestamps, start, end)
        part = timestamps[first:stop]
        if self.sampler.rule == "reference":
            return first + self.sampler.reference_clips(part, generator, self.num_segments).reshape(-1)
        bounds = self._bounds(len(part), self.sampler.span_frames(part))
        clips = [first + low + self.sampler.sample(part[low:high], generator) for low, high in bounds]
        return np.concatenate(clips)

    def _bounds(self, n: int, span: int) -> list[tuple[int, int]]:
        """Return the first frame and the end of each part of `n` frames, for clips that span `span` frames."""
        count = self.num_segments
        if n // count >= span or count == 1:
            return [(i * n // count, (i + 1) * n // count) for i in range(count)]
        room = max(n - span, 0)
        starts = [room * i // (count - 1) for i in range(count)]
        return [(low, min(low + span, n)) for low in starts]


@dataclass(kw_only=True, eq=False)
class ViewsTransform:
    """The published views of evaluation: resize the short side to `size`, crop squares along the longer side.

    The views are joined along the time axis, (view, frame), so that they form one clip.

    Args:
        size: Height and width of a view in pixels.
        num_views: Number of squares, spread from end to end of the longer side; published as 3. For one central
            view use `EvalTransform`.
        mean: Mean of each colour channel, in 0 to 1.
        std: Standard deviation of each colour channel, in 0 to 1.
    """

    size: int = 224
    num_views: int = 3
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size < 1 or self.num_views < 2:
            raise SettingError(
                f"size {self.size}, num_views {self.num_views}: give at least 1 pixel and 2 views; "
                "for one view use EvalTransform."
            )

    def __call__(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator | None = None
    ) -> Float[Tensor, "3 vt h2 w2"]:
        """Convert (T, 3, H, W) uint8 to (3, num_views * T, size, size) normalised float; `generator` is not used."""
        height, width = frames.shape[2:]
        short = min(height, width)
        resized = resize_fixed_point(frames, (self.size * height // short, self.size * width // short))
        longer = 2 if height > width else 3
        step = (resized.shape[longer] - self.size) // (self.num_views - 1)
        video = normalise(resized.float(), self.mean, self.std)
        return torch.cat([video.narrow(longer, i * step, self.size) for i in range(self.num_views)], dim=1)
