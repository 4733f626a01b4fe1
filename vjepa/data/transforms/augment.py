"""The training view of the published video probes: changed colours and shapes, a crop, an erased box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vjepa.data.transforms.auto_augment import change_frames, policy_named
from vjepa.data.transforms.video import (
    CROP_TRIES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalTransform,
    RandomTransform,
    check_random_crop,
    crop_and_resize,
    normalise,
    random_resized_crop_box,
)

ERASED_AREA = (0.02, 1 / 3)  # share of the frame
ERASED_ASPECT = (0.3, 1 / 0.3)  # height / width


def erase_box(
    video: Float[Tensor, "3 t h w"], probability: float, generator: np.random.Generator
) -> Float[Tensor, "3 t h w"]:
    """Replace a box of normalised frames by noise N(0, 1) with `probability`, in place.

    All frames have the same box with different noise. Its area is uniform, its aspect log-uniform; if 10 tries give
    no box that is smaller than the frame, nothing is erased.
    """
    if generator.random() >= probability:
        return video
    num_frames, height, width = video.shape[1:]
    for _ in range(CROP_TRIES):
        area = height * width * generator.uniform(*ERASED_AREA)
        aspect = math.exp(generator.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            noise = generator.standard_normal((3, num_frames, h, w), dtype=np.float32)
            video[:, :, top : top + h, left : left + w] = torch.from_numpy(noise)
            break
    return video


@dataclass(kw_only=True, eq=False)
class ProbeTrainTransform(RandomTransform):
    """The view on which the published video probes train: RandAugment, random resized crop, erasing.

    Each call draws again, so that several views of a video differ; within a view all frames change in the same way.
    The output is normalised float, because the erased box is noise around the mean.

    Args:
        size: Height and width of the output in pixels; one number for a square.
        scale: Smallest and largest share of the frame's area in a crop.
        ratio: Smallest and largest width / height of a crop.
        flip: Probability of a mirrored clip; published as 0, and 0.5 for anticipation.
        auto_augment: "rand-m7-n4-mstd0.5-inc1" as published, with other numbers, "original", or null for none.
        erasing: Probability of a clip with a box of noise.
        mean: Mean of each colour channel, in 0 to 1.
        std: Standard deviation of each colour channel, in 0 to 1.
    """

    size: int | tuple[int, int] = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: float = 0.0
    auto_augment: str | None = "rand-m7-n4-mstd0.5-inc1"
    erasing: float = 0.25
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        self._centred = EvalTransform(size=self.size, mean=self.mean, std=self.std)
        check_random_crop(self.scale, self.ratio, flip=self.flip, erasing=self.erasing)
        self.policy = None if self.auto_augment is None else policy_named(self.auto_augment)

    def __call__(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> Float[Tensor, "3 t h2 w2"]:
        """Convert (T, 3, H, W) uint8 to (3, T, height, width) normalised float."""
        if self.policy is not None:
            frames = change_frames(frames, self.policy.draw(generator))
        box = random_resized_crop_box(frames.shape[2], frames.shape[3], self.scale, self.ratio, generator)
        # the published order is normalise, crop, resize; both orders give the same values
        video = normalise(crop_and_resize(frames, box, self._centred.size), self.mean, self.std)
        if generator.random() < self.flip:
            video = video.flip(-1)
        return erase_box(video, self.erasing, generator)

    def centred(self) -> EvalTransform:
        """Return the published single view of evaluation, of the same size."""
        return self._centred
