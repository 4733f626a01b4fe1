"""Views of still images, as in I-JEPA's training and in the published ImageNet probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vjepa.data.transforms.augment import erase_box
from vjepa.data.transforms.auto_augment import Fill, change_frames, policy_named
from vjepa.data.transforms.fixed_point import Box
from vjepa.data.transforms.video import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SHORT_SIDE_PER_CROP,
    RandomTransform,
    check_random_crop,
    covering_size,
    normalise,
    random_resized_crop_box,
)
from vjepa.errors import SettingError
from vjepa.types import check_bytes

Interpolation = Literal["bilinear", "bicubic"]


def resize_image(
    image: UInt8[Tensor, "3 h w"], box: Box, size: tuple[int, int], interpolation: Interpolation = "bilinear"
) -> UInt8[Tensor, "3 {size[0]} {size[1]}"]:
    """Resize the box of an image with antialias, by Pillow, as all published image recipes do."""
    check_bytes(image)
    cut = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
    picture = Image.fromarray(rearrange(cut, "c h w -> h w c").numpy())
    resized = picture.resize((size[1], size[0]), Image.Resampling[interpolation.upper()])
    return rearrange(torch.from_numpy(np.asarray(resized).copy()), "h w c -> c h w")


@dataclass(kw_only=True, eq=False)
class ImageTrainTransform(RandomTransform):
    """A random view of an image: I-JEPA's pre-training by default.

    The published probe of V-JEPA on ImageNet trains with scale [0.08, 1.0], flip 0.5, interpolation bicubic,
    auto_augment original, erasing 0.25 and num_frames 16.

    Args:
        size: Height and width of the output in pixels; one number for a square.
        scale: Smallest and largest share of the image's area in a crop.
        ratio: Smallest and largest width / height of a crop.
        flip: Probability of a mirrored image.
        interpolation: Interpolation of the resize.
        auto_augment: "original", "rand-m9-n2-mstd0.5-inc1" or the like; null for none.
        erasing: Probability of an image with a box of noise.
        num_frames: Frames of the clip that repeats the image: 1 for an image encoder.
        mean: Mean of each colour channel, in 0 to 1.
        std: Standard deviation of each colour channel, in 0 to 1.
    """

    size: int | tuple[int, int] = 224
    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: float = 0.0
    interpolation: Interpolation = "bilinear"
    auto_augment: str | None = None
    erasing: float = 0.0
    num_frames: int = 1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        self._centred = ImageEvalTransform(
            size=self.size, num_frames=self.num_frames, mean=self.mean, std=self.std
        )
        check_random_crop(self.scale, self.ratio, flip=self.flip, erasing=self.erasing)
        self.policy = None if self.auto_augment is None else policy_named(self.auto_augment)

    def __call__(
        self, frames: UInt8[Tensor, "n 3 h w"], generator: np.random.Generator
    ) -> Float[Tensor, "3 t h2 w2"]:
        """Convert (1, 3, H, W) uint8 to (3, num_frames, height, width) normalised float."""
        image = _only(frames)
        box = random_resized_crop_box(image.shape[1], image.shape[2], self.scale, self.ratio, generator)
        crop = resize_image(image, box, self._centred.size, self.interpolation)
        if generator.random() < self.flip:
            crop = crop.flip(-1)
        if self.policy is not None:
            fill: Fill = (round(255 * self.mean[0]), round(255 * self.mean[1]), round(255 * self.mean[2]))
            (crop,) = change_frames(crop[None], self.policy.draw(generator), fill)
        video = normalise(crop[None].float(), self.mean, self.std)
        video = erase_box(video, self.erasing, generator)
        return repeat(video, "c 1 h w -> c t h w", t=self.num_frames).contiguous()

    def centred(self) -> ImageEvalTransform:
        """Return the published view of evaluation, of the same size."""
        return self._centred


class ImageEvalTransform:
    """The published view of an image in evaluation: resize the short side to 256 / 224 of `size`, crop the centre.

    Args:
        size: Height and width of the output in pixels; one number for a square.
        num_frames: Frames of the clip that repeats the image.
        mean: Mean of each colour channel, in 0 to 1.
        std: Standard deviation of each colour channel, in 0 to 1.
    """

    def __init__(
        self,
        *,
        size: int | tuple[int, int] = 224,
        num_frames: int = 1,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else size
        self.num_frames = num_frames
        self.mean = mean
        self.std = std
        if min(*self.size, num_frames) < 1:
            raise SettingError(f"size {size}, num_frames {num_frames}: give at least 1 pixel and 1 frame.")

    def __call__(
        self, frames: UInt8[Tensor, "n 3 h w"], generator: np.random.Generator | None = None
    ) -> Float[Tensor, "3 t h2 w2"]:
        """Convert (1, 3, H, W) uint8 to (3, num_frames, height, width) normalised float; `generator` is not used."""
        image = _only(frames)
        height, width = image.shape[1:]
        short_side = int(min(self.size) * SHORT_SIDE_PER_CROP)
        shape = covering_size(height, width, short_side, self.size)
        resized = resize_image(image, Box(0, 0, height, width), shape)
        top, left = (round((n - m) / 2) for n, m in zip(shape, self.size, strict=True))
        cut = resized[None, :, top : top + self.size[0], left : left + self.size[1]]
        video = normalise(cut.float(), self.mean, self.std)
        return repeat(video, "c 1 h w -> c t h w", t=self.num_frames).contiguous()


def _only(frames: UInt8[Tensor, "n 3 h w"]) -> UInt8[Tensor, "3 h w"]:
    if len(frames) != 1:
        raise SettingError(
            f"a clip of {len(frames)} frames for an image transform. Set the sampler's num_frames to 1."
        )
    return frames[0]
