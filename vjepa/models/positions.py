"""Positions of tokens: the styles by name, and the additive and rotary tables of each."""

from __future__ import annotations

import math
from typing import Literal

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
PRETRAIN_SIDE = 16  # tokens per side of V-JEPA 2.1's pre-training clips: 256 pixels, patches of 16
PRETRAIN_SIDE_14 = 18  # tokens per side of 252 pixels with patches of 14
MODALITY_STD = 1e-6  # initial, of the vectors by which V-JEPA 2.1 distinguishes videos from images


def is_additive(position: Position) -> bool:
    """Return whether positions are added to the tokens, once, before the blocks."""
    return position.startswith("sincos")


def additive_table(position: Position, grid: TokenGrid, width: int) -> Float64[Tensor, "n {width}"]:
    """Return the table of a clip's positions (N, width), N = len(grid).

    Raises:
        SettingError: If the position is "sincos_wh", which has no time axis, and the clip has several tubelets.
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
    """Return an encoder's own table; that of an image encoder has no channels for time: [h | w] or [w | h]."""
    if image and position != "sincos_wh":
        return sincos_2d(grid, width)
    return additive_table(position, grid, width)


def resized_table(
    table: Float[Tensor, "1 n d"], native: TokenGrid, grid: TokenGrid, *, first: bool
) -> Float[Tensor, "1 m d"]:
    """Return the table of positions for a clip of any shape, made from the table of the native grid.

    With `first`, a clip that is only shorter takes the first rows instead of interpolated ones.
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
    """Resize a table: by `scale` where that gives the grid (square images), else to the grid."""
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
    """Return the tables that turn queries and keys in each block; None where positions are additive.

    `ids` may have one row if all rows are equal. For "rope_stored" the blocks hold the frequencies. "rope_interpolated"
    scales height and width to `side` tokens.
    """
    if is_additive(position):
        return [None] * len(blocks)
    if position == "rope_stored":
        return list(stored_tables(blocks, ids, grid, head_dim))
    scaled = side if position == "rope_interpolated" else None
    return [rotary_3d(ids, grid, head_dim, ROTARY_STYLES[position], side=scaled)] * len(blocks)
