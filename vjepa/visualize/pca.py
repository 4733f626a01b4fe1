"""Pictures of tokens: their first three principal components as colours."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vjepa.types import TokenGrid
from vjepa.visualize.strips import clip_strip, join, shown_tubelets, stack, tile_size

TAIL = 0.02  # share of the tokens at either end of a component that get full or zero brightness


def pca_colours(tokens: Float[Tensor, "n d"]) -> Float[Tensor, "n 3"]:
    """Return colours in [0, 1]: the first three principal components of the tokens, each scaled to its own range.

    The components are fitted to these tokens; the sign of each makes its largest weight positive. If all tokens are
    equal, the colours are grey.
    """
    centred = tokens.float().cpu() - tokens.float().cpu().mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:3]
    directions = directions * directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    parts = F.pad(centred @ directions.T, (0, 3 - len(directions)))
    low, high = parts.quantile(TAIL, dim=0), parts.quantile(1 - TAIL, dim=0)
    spread = high - low
    alike = spread <= 1e-5 * tokens.float().abs().max().cpu()
    return torch.where(alike, 0.5, (parts - low) / spread.clamp(min=1e-12)).clamp(0, 1)


def pca_strip(tokens: Float[Tensor, "n d"], grid: TokenGrid, size: tuple[int, int]) -> Image.Image:
    """Draw a strip of `pca_colours`, one square per token; `size` is the height and width of a tile in pixels."""
    assert len(tokens) == len(grid), (tokens.shape, grid)
    cube = rearrange(pca_colours(tokens), "(t h w) c -> t c h w", t=grid.t, h=grid.h)
    return join(F.interpolate(cube[shown_tubelets(grid)], size=size, mode="nearest"))


def pca_picture(
    video: UInt8[Tensor, "3 frames height width"], tokens: Float[Tensor, "n d"], grid: TokenGrid
) -> Image.Image:
    """Draw the clip above the colours of its tokens."""
    return stack([clip_strip(video, grid), pca_strip(tokens, grid, tile_size(*video.shape[2:]))])
