"""From decoded frames to a normalised clip; one random box and one flip for all frames of a clip."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vjepa.data.transforms.fixed_point import Box, resize_fixed_point
from vjepa.errors import SettingError
from vjepa.types import PixelScale

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_TRIES = 10  # as published
# the published evaluation resizes the short side to 256 for a crop of 224
SHORT_SIDE_PER_CROP = 256 / 224


@runtime_checkable
class PixelTransform(Protocol):
    """A transform that can stop short of floats, so that workers, pipes and the way to the device carry bytes."""

    @property
    def pixel_scale(self) -> PixelScale: ...

    def pixels(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> UInt8[Tensor, "3 t h2 w2"]: ...


@runtime_checkable
class ClipTransform(Protocol):
    """Anything that turns decoded frames into network input."""

    def __call__(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> Float[Tensor, "3 t h2 w2"]: ...


class TrainingTransform(ABC):
    """A transform that draws, and knows its view without chance; the base of what `data.transform` may name."""

    @abstractmethod
    def __call__(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> Float[Tensor, "3 t2 h2 w2"]:
        """Frames (T, 3, H, W) of one clip to network input."""

    @abstractmethod
    def centred(self) -> ClipTransform:
        """The view for validation."""


@runtime_checkable
class Draws(Protocol):
    """The random numbers a crop takes; `numpy.random.Generator` has them."""

    def uniform(self, low: float, high: float) -> float: ...

    def integers(self, low: int, high: int) -> int: ...


def random_resized_crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: Draws
) -> Box:
    """The published random crop: uniform area, log-uniform aspect ratio, 10 tries, then a central crop.

    Args:
        height: Of the frame, pixels.
        width: Of the frame, pixels.
        scale: Smallest and largest share of the frame's area.
        ratio: Smallest and largest width / height.
        rng: Source of the draws; `integers` excludes its upper end.

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
    """The box of every frame, bilinear without antialias (`align_corners=False`), as published; 0 to 255."""
    cut = frames[:, :, box.top : box.top + box.height, box.left : box.left + box.width].float()
    if cut.shape[-2:] == size:
        return cut
    return F.interpolate(cut, size=size, mode="bilinear", align_corners=False)


def crop_and_resize_pixels(
    frames: UInt8[Tensor, "t c h w"], box: Box, size: tuple[int, int]
) -> UInt8[Tensor, "t c {size[0]} {size[1]}"]:
    """`crop_and_resize` in bytes. Weights have 8 bits or more, so a pixel may be one grey level off."""
    cut = frames[:, :, box.top : box.top + box.height, box.left : box.left + box.width]
    if cut.shape[-2:] == size:
        return cut
    # colours side by side, as decoders give them: torch then takes all three at once
    cut = cut.contiguous(memory_format=torch.channels_last)
    return F.interpolate(cut, size=size, mode="bilinear", align_corners=False)


def normalise(
    frames: Float[Tensor, "t 3 h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "3 t h w"]:
    """(x - 255 mean) / (255 std) by channel, channels first."""
    red, green, blue = mean
    scale = PixelScale((red, green, blue), (std[0], std[1], std[2]))
    return scale.normalised(rearrange(frames, "t c h w -> c t h w").contiguous())


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise SettingError(f"size {size}: height and width must be at least 1 pixel.")
    return height, width


class TrainTransform(TrainingTransform):
    """Random resized crop, flip and normalisation of pre-training, the same for all frames of a clip.

    Args:
        size: Height and width of the output in pixels; one number for a square.
        scale: Smallest and largest share of the frame's area that a crop takes.
        ratio: Smallest and largest width / height of a crop.
        flip: Probability of a mirrored clip; 0 where left and right have a meaning.
        mean: Of each colour channel, of 1.
        std: Of each colour channel, of 1.
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
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1] and 0 <= flip <= 1):
            raise SettingError(
                f"scale {scale}, ratio {ratio}, flip {flip}: scale and ratio are (smallest, largest) above 0,"
                " scale at most 1, flip between 0 and 1."
            )
        self.size = _height_width(size)
        self.scale = scale
        self.ratio = ratio
        self.flip = flip
        self.mean = mean
        self.std = std

    def __call__(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> Float[Tensor, "3 t h2 w2"]:
        """(T, 3, H, W) uint8 to (3, T, height, width) normalised float."""
        box = random_resized_crop_box(frames.shape[2], frames.shape[3], self.scale, self.ratio, generator)
        resized = crop_and_resize(frames, box, self.size)
        if generator.random() < self.flip:
            resized = resized.flip(-1)
        return normalise(resized, self.mean, self.std)

    def pixels(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator
    ) -> UInt8[Tensor, "3 t h2 w2"]:
        """The same clip in bytes, before normalisation: within one grey level of it, in a quarter of the time."""
        box = random_resized_crop_box(frames.shape[2], frames.shape[3], self.scale, self.ratio, generator)
        resized = crop_and_resize_pixels(frames, box, self.size)
        if generator.random() < self.flip:
            resized = resized.flip(-1)
        return rearrange(resized, "t c h w -> c t h w").contiguous()

    @property
    def pixel_scale(self) -> PixelScale:
        """What `pixels` still lacks."""
        return PixelScale(self.mean, self.std)

    def centred(self) -> EvalTransform:
        """The same output without chance: the largest central view of the whole frame."""
        return EvalTransform(size=self.size, short_side=min(self.size), mean=self.mean, std=self.std)


class EvalTransform:
    """The published single view of evaluation: resize the short side, cut the centre, normalise.

    Args:
        size: Height and width of the output in pixels; one number for a square.
        short_side: Pixels of the short side before the cut (default: the published 256 / 224 of `size`;
            `size` itself cuts nothing off a square video).
        mean: Of each colour channel, of 1.
        std: Of each colour channel, of 1.
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
        """(T, 3, H, W) uint8 to (3, T, height, width) normalised float; draws nothing."""
        return self.pixel_scale.normalised(self.pixels(frames))

    def pixels(
        self, frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator | None = None
    ) -> UInt8[Tensor, "3 t h2 w2"]:
        """The same clip in bytes, before normalisation, to the bit."""
        crop_h, crop_w = self.size
        height, width = covering_size(frames.shape[2], frames.shape[3], self.short_side, self.size)
        top, left = int(round((height - crop_h) / 2)), int(round((width - crop_w) / 2))
        cut = resize_fixed_point(frames, (height, width), Box(top, left, crop_h, crop_w))
        return rearrange(cut, "t c h w -> c t h w").contiguous()

    @property
    def pixel_scale(self) -> PixelScale:
        """What `pixels` still lacks."""
        return PixelScale(self.mean, self.std)


def covering_size(height: int, width: int, short_side: int, crop: tuple[int, int]) -> tuple[int, int]:
    """Height and width with this short side in the shape of the frame, larger where the crop would not fit.

    >>> covering_size(240, 427, short_side=256, crop=(224, 224))
    (256, 455)
    """
    # whole numbers: (256 / 107) * 107 is below 256, and would make frames of 255 pixels
    num, den = short_side, min(height, width)
    for need, side in ((crop[0], height), (crop[1], width)):
        if need * den > num * side:  # a wide crop of a square video needs more than its short side
            num, den = need, side
    return max(height * num // den, crop[0]), max(width * num // den, crop[1])
