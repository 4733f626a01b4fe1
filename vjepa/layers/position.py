"""Positions of tokens in space-time: additive sine-cosine tables and rotary tables.

Sources: V-JEPA (arXiv 2404.08471) for the tables that are added, V-JEPA 2 (arXiv 2506.09985) for the rotary ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Float64, Int
from torch import Tensor

from vjepa.types import TokenGrid

RotaryStyle = Literal["tiled", "interleaved"]
BASE = 10000.0  # wavelength base of every published table, additive and rotary


def sincos_1d(positions: Float64[Tensor, "n"], width: int) -> Float64[Tensor, "n {width}"]:
    """Sine and cosine of each position at `width // 2` frequencies, as halves [sin | cos].

    Args:
        positions: Coordinates (N,), in tokens, float64.
        width: Even number of channels.
    """
    frequencies = BASE ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def token_coordinates(ids: Int[Tensor, "*b n"], grid: TokenGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates (t, h, w) of token ids, each shaped like `ids`; time is slowest."""
    plane = grid.h * grid.w
    return ids // plane, ids % plane // grid.w, ids % grid.w


def sincos_3d(grid: TokenGrid, width: int, *, uniform_power: bool = True) -> Float64[Tensor, "n {width}"]:
    """Table of a clip's positions, channels ordered [t | h | w].

    Args:
        grid: Extent of the clip in tokens.
        width: Channels of a token.
        uniform_power: Give the three axes equal widths, cut to `width` at the end (as in every released
            model); otherwise time gets half of the channels.

    Returns:
        Table (N, width), float64, N = len(grid).
    """
    axis = 2 * math.ceil(width / 6)
    widths = (axis, axis, axis) if uniform_power else (width // 2, width // 4, width // 4)
    axes = token_coordinates(torch.arange(len(grid)), grid)
    tables = [sincos_1d(x.double(), w) for x, w in zip(axes, widths, strict=True)]
    return torch.cat(tables, dim=1)[:, :width]


def sincos_2d(
    grid: TokenGrid, width: int, *, order: Literal["hw", "wh"] = "hw"
) -> Float64[Tensor, "n {width}"]:
    """Table of an image's positions: halves [h | w] as in V-JEPA, or [w | h] as in I-JEPA.

    Args:
        grid: Extent in tokens; its `t` must be 1.
        width: Channels of a token.
        order: Which axis comes first.
    """
    assert grid.t == 1, f"an image has one time step, got {grid}"
    _, h, w = token_coordinates(torch.arange(len(grid)), grid)
    axes = (h, w) if order == "hw" else (w, h)
    return torch.cat([sincos_1d(x.double(), width // 2) for x in axes], dim=1)


@dataclass(frozen=True)
class RotaryTables:
    """Cosines and sines for all heads and blocks of one forward: each (B or 1, 1, N, head_dim), fp32."""

    cos: Float[Tensor, "b 1 n d"]
    sin: Float[Tensor, "b 1 n d"]


def rotary_angles(
    positions: Float[Tensor, "*b n"] | Int[Tensor, "*b n"], width: int, style: RotaryStyle
) -> Float[Tensor, "*b n {width}"]:
    """Angle of every channel of one axis: `width // 2` frequencies, each used twice.

    Args:
        positions: Coordinates along the axis, in tokens.
        width: Even number of rotated channels.
        style: "tiled" repeats the whole run of angles, as the released V-JEPA 2 weights were trained with
            (not a true rotation, for adjacent channels are paired); "interleaved" repeats each angle.
    """
    frequencies = BASE ** (-torch.arange(width // 2, device=positions.device) / (width / 2))
    angles = positions[..., None] * frequencies
    pattern = "... k -> ... (two k)" if style == "tiled" else "... k -> ... (k two)"
    return repeat(angles, pattern, two=2)


def rotary_3d(
    ids: Int[Tensor, "b n"], grid: TokenGrid, head_dim: int, style: RotaryStyle = "tiled"
) -> RotaryTables:
    """Tables that rotate the channels of a head by the tokens' places: [t | h | w | rest untouched].

    Args:
        ids: Token ids (B, N), or (1, N) where all rows are alike.
        grid: Grid in which the ids count.
        head_dim: See `rotary_tables`.
        style: See `rotary_angles`.
    """
    return rotary_tables(token_coordinates(ids, grid), head_dim, style)


def rotary_tables(
    axes: tuple[Tensor, Tensor, Tensor], head_dim: int, style: RotaryStyle = "tiled"
) -> RotaryTables:
    """Tables for tokens at any coordinates.

    Args:
        axes: Coordinates t, h and w in tokens, each (B, N), whole or not.
        head_dim: Channels of a head, at least 6; each axis rotates `2 * (head_dim // 3 // 2)` of them.
        style: See `rotary_angles`.
    """
    width = 2 * (head_dim // 3 // 2)
    if width < 2:
        raise ValueError(
            f"rotary positions need head_dim >= 6, got {head_dim}. Use fewer heads or more width."
        )
    angles = torch.cat([rotary_angles(x, width, style) for x in axes], dim=-1)
    angles = torch.nn.functional.pad(angles, (0, head_dim - 3 * width))  # angle 0: the rest stays as it is
    angles = rearrange(angles, "b n d -> b 1 n d")
    return RotaryTables(cos=angles.cos(), sin=angles.sin())


def rotate(x: Float[Tensor, "b heads n d"], tables: RotaryTables) -> Float[Tensor, "b heads n d"]:
    """Queries or keys, turned by their positions: `x * cos + J(x) * sin`, J the quarter turn of channel pairs.

    The arithmetic is fp32 whatever the dtype of `x`: in bf16 the angles at position 63 would be off by 0.1.
    """
    pairs = rearrange(x, "b heads n (k two) -> b heads n k two", two=2)
    quarter = rearrange(
        torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1), "b heads n k two -> b heads n (k two)"
    )
    return (x * tables.cos + quarter * tables.sin).to(x.dtype)
