"""Strips of tiles: the tubelets of a clip side by side, with time from left to right."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vjepa.types import PixelScale, TokenGrid

TILE_HEIGHT = 144  # height of a tile in pixels
GAP = 6  # pixels between tiles
MOST_TILES = 8  # maximum number of tubelets shown; of a longer clip they are evenly spaced
WHITE = 255


def shown_tubelets(grid: TokenGrid) -> Int64[Tensor, "n"]:
    """Return the indices of the tubelets to show: all of a short clip, evenly spaced ones of a long clip.

    >>> shown_tubelets(TokenGrid(t=16, h=1, w=1)).tolist()
    [0, 2, 4, 6, 9, 11, 13, 15]
    """
    count = min(grid.t, MOST_TILES)
    return torch.linspace(0, grid.t - 1, count, dtype=torch.float64).round().long()


def pixels_of(video: Float[Tensor, "3 t h w"], scale: PixelScale) -> UInt8[Tensor, "3 t h w"]:
    """Return a normalised clip as uint8 RGB, the inverse of `PixelScale.normalised`."""
    mean, std = (torch.tensor(x)[:, None, None, None] for x in (scale.mean, scale.std))
    return ((video * std + mean) * WHITE).round().clamp(0, WHITE).to(torch.uint8)


def tubelet_frames(
    video: UInt8[Tensor, "3 frames height width"], grid: TokenGrid
) -> Float[Tensor, "{grid.t} 3 height width"]:
    """Return the first frame of each tubelet, (t, 3, H, W) in [0, 1]."""
    starts = torch.arange(grid.t) * max(video.shape[1] // grid.t, 1)
    return rearrange(video[:, starts], "c t h w -> t c h w") / WHITE


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width, in pixels, of a tile that shows frames of the given height and width."""
    return TILE_HEIGHT, max(round(TILE_HEIGHT * width / height), 1)


def enlarge(images: Float[Tensor, "t 3 h w"], size: tuple[int, int]) -> Float[Tensor, "t 3 h2 w2"]:
    """Resize images to (height, width) in pixels, by bilinear interpolation."""
    return F.interpolate(images, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def join(tiles: Float[Tensor, "t 3 h w"]) -> Image.Image:
    """Join tiles in [0, 1] to one image, from left to right on white."""
    padded = F.pad(tiles, (0, GAP), value=1.0)
    row = rearrange(padded, "t c h w -> h (t w) c")[:, :-GAP]
    return Image.fromarray((row * WHITE).round().byte().numpy().astype(np.uint8))


def stack(pictures: list[Image.Image]) -> Image.Image:
    """Stack images from top to bottom on white."""
    height = sum(p.height for p in pictures) + GAP * (len(pictures) - 1)
    whole = Image.new("RGB", (max(p.width for p in pictures), height), (WHITE,) * 3)
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + GAP
    return whole


def clip_strip(video: UInt8[Tensor, "3 frames height width"], grid: TokenGrid) -> Image.Image:
    """Draw the clip: the first frame of each shown tubelet."""
    frames = tubelet_frames(video, grid)[shown_tubelets(grid)]
    return join(enlarge(frames, tile_size(*video.shape[2:])))
