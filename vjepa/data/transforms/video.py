"""Transforms from decoded frames to a normalised clip; one random box and one flip for all frames of a clip."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vjepa.data.transforms.fixed_point import Box, resize_fixed_point
from vjepa.errors import SettingError
from vjepa.types import PixelScale, check_bytes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_TRIES = 10  # as published
# the published evaluation resizes the short side to 256 for a crop of 224
SHORT_SIDE_PER_CROP = 256 / 224


@runtime_checkable
class PixelTransform(Protocol):
    """A transform that can stop before floats, so that workers and the transfer to the device use bytes."""

    @property
    def pixel_scale(self) -> PixelScale: ...

    def pixels(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> UInt8[Tensor, "3 t h2 w2"]: ...


@runtime_checkable
class ClipTransform(Protocol):
    """A conversion of decoded frames to network input."""

    def __call__(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> Float[Tensor, "3 t h2 w2"]: ...


class RandomTransform(ABC):
    """A random transform with a deterministic counterpart; the base class of what `data.transform` may name."""

    @abstractmethod
    def __call__(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> Float[Tensor, "3 t2 h2 w2"]:
        """Convert frames (T, 3, H, W) of one clip to network input."""

    @abstractmethod
    def centred(self) -> ClipTransform:
        """Return the transform for validation."""


@runtime_checkable
class Draws(Protocol):
    """The random numbers that a crop needs, as `numpy.random.Generator` has them; `integers` excludes `high`."""

    def uniform(self, low: float, high: float) -> float: ...

    def integers(self, low: int, high: int) -> int: ...


def random_resized_crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: Draws
) -> Box:
    """Draw the published random crop: uniform area, log-uniform aspect ratio, 10 tries, then a central crop.

    `scale` is the range of the crop's share of the frame's area, `ratio` that of its width / height.

    >>> random_resized_crop_box(60, 90, (1.0, 1.0), (1.5, 1.5), np.random.default_rng(0))
    Box(top=0, left=0, height=60, width=90)
    """
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            return Box(top, left, h, w)
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return Box((height - h) // 2, (width - w) // 2, h, w)


def crop_and_resize(
    frames: UInt8[Tensor, "t c h w"], box: Box, size: tuple[int, int]
) -> Float[Tensor, "t c {size[0]} {size[1]}"]:
    """Resize the box of every frame, bilinear without antialias (`align_corners=False`), as published; 0 to 255."""
    check_bytes(frames)
    cut = frames[:, :, box.top : box.top + box.height, box.left : box.left + box.width].float()
    if cut.shape[-2:] == size:
        return cut
    return F.interpolate(cut, size=size, mode="bilinear", align_corners=False)


def crop_and_resize_pixels(
    frames: UInt8[Tensor, "t c h w"], box: Box, size: tuple[int, int]
) -> UInt8[Tensor, "t c {size[0]} {size[1]}"]:
    """Do `crop_and_resize` in bytes; its weights have at least 8 bits, so a pixel may differ by one grey level."""
    check_bytes(frames)
    cut = frames[:, :, box.top : box.top + box.height, box.left : box.left + box.width]
    if cut.shape[-2:] == size:
        return cut
    # channels last, as decoders return them: torch then processes all three at once
    cut = cut.contiguous(memory_format=torch.channels_last)
    return F.interpolate(cut, size=size, mode="bilinear", align_corners=False)


def normalise(
    frames: Float[Tensor, "t 3 h w"], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "3 t h w"]:
    """Return (x - 255 mean) / (255 std) per channel, channels first."""
    return PixelScale(mean, std).normalised(rearrange(frames, "t c h w -> c t h w").contiguous())


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise SettingError(f"size {size}: height and width must be at least 1 pixel.")
    return height, width


def check_random_crop(scale: tuple[float, float], ratio: tuple[float, float], **probabilities: float) -> None:
    """Refuse settings of a random crop, or probabilities of other random changes, that cannot be drawn."""
    inside = all(0 <= probability <= 1 for probability in probabilities.values())
    if not (inside and 0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
        given = ", ".join(f"{name} {value}" for name, value in probabilities.items())
        raise SettingError(
            f"scale {scale}, ratio {ratio}, {given}: scale and ratio are (smallest, largest) above 0, scale at most 1,"
            f" {' and '.join(probabilities)} between 0 and 1."
        )


class TrainTransform(RandomTransform):
    """The random resized crop, flip and normalisation of pre-training, the same for all frames of a clip.

    Args:
        size: Height and width of the output in pixels; one number for a square.
        scale: Smallest and largest share of the frame's area in a crop.
        ratio: Smallest and largest width / height of a crop.
        flip: Probability of a mirrored clip; 0 if left and right have a meaning.
        mean: Mean of each colour channel, in 0 to 1.
        std: Standard deviation of each colour channel, in 0 to 1.
    """

    def __init__(
        self,
        *,
        size: int | tuple[int, int] = 224,
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (0.75, 1.35),
        flip: float = 0.5,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        check_random_crop(scale, ratio, flip=flip)
        self.size = _height_width(size)
        self.scale = scale
        self.ratio = ratio
        self.flip = flip
        self.mean = mean
        self.std = std

    def __call__(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> Float[Tensor, "3 t h2 w2"]:
        """Convert (T, 3, H, W) uint8 to (3, T, height, width) normalised float."""
        return normalise(self._view(frames, generator, crop_and_resize), self.mean, self.std)

    def pixels(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> UInt8[Tensor, "3 t h2 w2"]:
        """Return the same clip in bytes before normalisation: within one grey level, in a quarter of the time."""
        resized = self._view(frames, generator, crop_and_resize_pixels)
        return rearrange(resized, "t c h w -> c t h w").contiguous()

    def _view(
        self,
        frames: UInt8[Tensor, "t 3 h w"],
        generator: np.random.Generator,
        resize: Callable[[Tensor, Box, tuple[int, int]], Tensor],
    ) -> Tensor:
        box = random_resized_crop_box(frames.shape[2], frames.shape[3], self.scale, self.ratio, generator)
        resized = resize(frames, box, self.size)
        return resized.flip(-1) if generator.random() < self.flip else resized

    @property
    def pixel_scale(self) -> PixelScale:
        """The normalisation that `pixels` omits."""
        return PixelScale(self.mean, self.std)

    def centred(self) -> EvalTransform:
        """Return a transform without randomness: the largest central view of the whole frame."""
        return EvalTransform(size=self.size, short_side=min(self.size), mean=self.mean, std=self.std)


class EvalTransform:
    """The published single view of evaluation: resize the short side, crop the centre, normalise.

    Args:
        size: Height and width of the output in pixels; one number for a square.
        short_side: Pixels of the short side before the crop (default: the published 256 / 224 of `size`). With `size`
            itself, nothing of a square video is cropped.
        mean: Mean of each colour channel, in 0 to 1.
        std: Standard deviation of each colour channel, in 0 to 1.
    """

    def __init__(
        self,
        *,
        size: int | tuple[int, int] = 224,
        short_side: int | None = None,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        self.size = _height_width(size)
        self.short_side = short_side or int(min(self.size) * SHORT_SIDE_PER_CROP)
        if self.short_side < min(self.size):
            raise SettingError(
                f"short_side {short_side} is below size {size}. Give at least {min(self.size)}."
            )
        self.mean = mean
        self.std = std

    def __call__(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator | None = None
    ) -> Float[Tensor, "3 t h2 w2"]:
        """Convert (T, 3, H, W) uint8 to (3, T, height, width) normalised float; `generator` is not used."""
        return self.pixel_scale.normalised(self.pixels(frames))

    def pixels(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator | None = None
    ) -> UInt8[Tensor, "3 t h2 w2"]:
        """Return the same clip in bytes before normalisation, to the bit."""
        crop_h, crop_w = self.size
        height, width = covering_size(frames.shape[2], frames.shape[3], self.short_side, self.size)
        top, left = int(round((height - crop_h) / 2)), int(round((width - crop_w) / 2))
        cut = resize_fixed_point(frames, (height, width), Box(top, left, crop_h, crop_w))
        return rearrange(cut, "t c h w -> c t h w").contiguous()

    @property
    def pixel_scale(self) -> PixelScale:
        """The normalisation that `pixels` omits."""
        return PixelScale(self.mean, self.std)


def covering_size(height: int, width: int, short_side: int, crop: tuple[int, int]) -> tuple[int, int]:
    """Return height and width with this short side and the frame's aspect, larger if the crop would not fit.

    >>> covering_size(240, 427, short_side=256, crop=(224, 224))
    (256, 455)
    """
    # whole numbers: (256 / 107) * 107 is below 256, and would make frames of 255 pixels
    num, den = short_side, min(height, width)
    for need, side in ((crop[0], height), (crop[1], width)):
        if need * den > num * side:  # a wide crop of a square video needs more than its short side
            num, den = need, side
    return max(height * num // den, crop[0]), max(width * num // den, crop[1])
