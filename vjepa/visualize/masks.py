"""Pictures of masks: the visible, hidden and dropped tokens of a clip."""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vjepa.types import MaskPair, TokenGrid
from vjepa.visualize.strips import enlarge, join, shown_tubelets, tile_size, tubelet_frames

HIDDEN = (0.16, 0.18, 0.24)  # colour of the tokens to predict
DROPPED = (0.78, 0.79, 0.82)  # colour of the excess tokens, in neither context nor target
TINT = 0.9  # opacity of the colour over the pixels


def mask_picture(
    video: UInt8[Tensor, "3 frames height width"], pair: MaskPair, grid: TokenGrid, *, row: int = 0
) -> Image.Image:
    """Draw a strip of the clip in which hidden tokens are dark, and tokens in neither context nor target pale.

    Incomplete tubelets and patches are not shown; `row` is that of the batch.
    """
    height, width = video.shape[2] // grid.h * grid.h, video.shape[3] // grid.w * grid.w
    chosen = shown_tubelets(grid)
    tiles = enlarge(tubelet_frames(video[:, :, :height, :width], grid)[chosen], tile_size(height, width))
    hidden = _cover(pair.target[row], grid, tiles)[chosen]
    dropped = 1 - hidden - _cover(pair.context[row], grid, tiles)[chosen]
    for share, colour in ((hidden, HIDDEN), (dropped, DROPPED)):
        tiles = torch.lerp(tiles, torch.tensor(colour)[:, None, None].expand_as(tiles), TINT * share)
    return join(tiles)


def _cover(ids: Tensor, grid: TokenGrid, tiles: Tensor) -> Float[Tensor, "t 3 h w"]:
    """Return 1 for the pixels of each tile that belong to a token in `ids`, else 0."""
    flat = torch.zeros(len(grid)).scatter_(0, ids.cpu(), 1.0)
    cube = rearrange(flat, "(t h w) -> t 1 h w", t=grid.t, h=grid.h)
    return repeat(F.interpolate(cube, size=tiles.shape[2:], mode="nearest"), "t 1 h w -> t c h w", c=3)
