"""How encoders and predictors tell their tokens where they are: the styles by name, and what each is made of."""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.layers import RotaryStyle, RotaryTables, rotary_3d, sincos_2d, sincos_3d, stored_tables
from vjepa.types import TokenGrid

Position = Literal[
    "sincos", "sincos_first", "sincos_plain", "sincos_wh",
    "rope", "rope_interleaved", "rope_interpolated", "rope_stored",
]  # fmt: skip
ROTARY_STYLES: dict[str, RotaryStyle] = {
    "rope": "tiled",
    "rope_interleaved": "interleaved",
    "rope_interpolated": "interleaved",
}
PRETRAIN_SIDE = 16  # tokens along a side of V-JEPA 2.1's pre-training clips: 256 pixels, patches of 16
PRETRAIN_SIDE_14 = 18  # of 252 pixels, patches of 14
MODALITY_STD = 1e-6  # at the start, of the vectors that tell V-JEPA 2.1 a video from an image


def is_additive(position: Position) -> bool:
    """Whether positions are added to the tokens, once, before the blocks."""
    return position.startswith("sincos")


def additive_table(position: Position, grid: TokenGrid, width: int) -> Float64[Tensor, "n {width}"]:
    """Table of a clip's positions, N = len(grid).

    Raises:
        ValueError: If "sincos_wh", which knows no time, is asked for a clip of several tubelets.
    """
    if position != "sincos_wh":
        return sincos_3d(grid, width, uniform_power=position != "sincos_plain")
    if grid.t != 1:
        raise SettingError(
            f'position="sincos_wh" is for images, this clip has {grid.t} tubelets. Use "sincos", or num_frames=1.'
        )
    return sincos_2d(grid, width, order="wh")


def native_table(
    position: Position, grid: TokenGrid, width: int, *, image: bool
) -> Float64[Tensor, "n {width}"]:
    """The encoder's own table: that of an image encoder has no channels for time, halves [h | w] or [w | h]."""
    if image and position != "sincos_wh":
        return sincos_2d(grid, width)
    return additive_table(position, grid, width)


def resized_table(
    table: Float[Tensor, "1 n d"], native: TokenGrid, grid: TokenGrid, *, first: bool
) -> Float[Tensor, "1 m d"]:
    """Table of positions for a clip of any shape, made from the native one.

    Args:
        table: Positions of the native grid.
        native: That grid.
        grid: The grid asked for.
        first: Take the first rows for a clip that is only shorter, and do not interpolate.
    """
    if grid == native:
        return table
    if first and (grid.h, grid.w) == (native.h, native.w) and grid.t < native.t:
        return table[:, : len(grid)]
    cube = rearrange(table, "1 (t h w) d -> 1 d t h w", t=native.t, h=native.h, w=native.w)
    if native.t == 1 and grid.t == 1:
        scale = math.sqrt(grid.h * grid.w / (native.h * native.w))  # as released: one scale for both axes
        resized = _bicubic(rearrange(cube, "1 d 1 h w -> 1 d h w"), grid, scale)
        return rearrange(resized, "1 d h w -> 1 (h w) d")
    scales = (grid.t / native.t, grid.h / native.h, grid.w / native.w)
    cube = F.interpolate(cube, scale_factor=scales, mode="trilinear")
    assert tuple(cube.shape[2:]) == (grid.t, grid.h, grid.w), (cube.shape, grid)
    return rearrange(cube, "1 d t h w -> 1 (t h w) d")


def _bicubic(table: Float[Tensor, "1 d h w"], grid: TokenGrid, scale: float) -> Float[Tensor, "1 d h2 w2"]:
    """The table at a new size: by `scale` where that gives the grid (square images), else by size."""
    resized = F.interpolate(table, scale_factor=scale, mode="bicubic")
    if tuple(resized.shape[2:]) == (grid.h, grid.w):
        return resized
    return F.interpolate(table, size=(grid.h, grid.w), mode="bicubic")


def rotary_tables(
    position: Position,
    ids: Int[Tensor, "b n"],
    grid: TokenGrid,
    blocks: nn.ModuleList,
    *,
    head_dim: int,
    side: int = PRETRAIN_SIDE,
) -> list[RotaryTables | None]:
    """What turns queries and keys in each block: one set of tables a forward, shared by all that agree.

    Args:
        position: Style; additive ones turn nothing.
        ids: Token ids (B, N), or (1, N) where all rows are alike.
        grid: Grid in which the ids count.
        blocks: The blocks; of "rope_stored" they hold the frequencies.
        head_dim: Channels of a head.
        side: Side in tokens to which "rope_interpolated" scales height and width.
    """
    if is_additive(position):
        return [None] * len(blocks)
    if position == "rope_stored":
        return list(stored_tables(blocks, ids, grid, head_dim))
    scaled = side if position == "rope_interpolated" else None
    return [rotary_3d(ids, grid, head_dim, ROTARY_STYLES[position], side=scaled)] * len(blocks)


def device_ids(grid: TokenGrid, device: torch.device) -> Int[Tensor, "1 n"]:
    """All ids of a grid, as one row."""
    return torch.arange(len(grid), device=device)[None]
