"""Positions of tokens in space-time: additive sine-cosine tables and rotary tables.

Sources: V-JEPA (arXiv 2404.08471) for the additive tables, V-JEPA 2 (arXiv 2506.09985) for the rotary tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import pad

from vjepa.errors import SettingError
from vjepa.types import TokenGrid

RotaryStyle = Literal["tiled", "interleaved"]
BASE = 10000.0  # wavelength base of every published table, additive and rotary


def sincos_1d(positions: Float64[Tensor, "n"], width: int) -> Float64[Tensor, "n {width}"]:
    """Return the sine and cosine of each position, in tokens, at `width // 2` frequencies: halves [sin | cos]."""
    frequencies = BASE ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def token_coordinates(ids: Int[Tensor, "*b n"], grid: TokenGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coordinates (t, h, w) of token ids, each shaped like `ids`; time is the slowest axis."""
    plane = grid.h * grid.w
    return ids // plane, ids % plane // grid.w, ids % grid.w


def sincos_3d(grid: TokenGrid, width: int, *, uniform_power: bool = True) -> Float64[Tensor, "n {width}"]:
    """Return the sine-cosine table of a clip, with channels in the order [t | h | w].

    With `uniform_power` the three axes have equal widths and the table is truncated to `width`, as in every released
    model; otherwise time gets half of the channels.
    """
    axis = 2 * math.ceil(width / 6)
    widths = (axis, axis, axis) if uniform_power else (width // 2, width // 4, width // 4)
    axes = token_coordinates(torch.arange(len(grid)), grid)
    tables = [sincos_1d(x.double(), w) for x, w in zip(axes, widths, strict=True)]
    return torch.cat(tables, dim=1)[:, :width]


def sincos_2d(
    grid: TokenGrid, width: int, *, order: Literal["hw", "wh"] = "hw"
) -> Float64[Tensor, "n {width}"]:
    """Return the sine-cosine table of an image: halves [h | w] as in V-JEPA, or [w | h] as in I-JEPA."""
    assert grid.t == 1, f"an image has one time step, got {grid}"
    _, h, w = token_coordinates(torch.arange(len(grid)), grid)
    axes = (h, w) if order == "hw" else (w, h)
    return torch.cat([sincos_1d(x.double(), width // 2) for x in axes], dim=1)


@dataclass(frozen=True)
class RotaryTables:
    """Cosines and sines of one forward pass, shared by all heads: each (B or 1, 1, N, head_dim), fp32.

    A rotated channel is `x * cos + partner(x) * sin`; `sin` is negative for the first channel of a pair.
    `partner` is the other channel of each pair; None means the pairs (0, 1), (2, 3), ...
    """

    cos: Float[Tensor, "b 1 n d"]
    sin: Float[Tensor, "b 1 n d"]
    partner: Int[Tensor, "d"] | None = None


def rotary_angles(
    positions: Int[Tensor, "*b n"] | Float[Tensor, "*b n"], width: int, style: RotaryStyle
) -> Float[Tensor, "*b n {width}"]:
    """Return the angle of every channel of one axis: `width // 2` frequencies, each used twice.

    "tiled" repeats the sequence of angles; the released V-JEPA 2 weights were trained with it. It is not a true
    rotation, because adjacent channels are paired. "interleaved" repeats each angle.
    """
    frequencies = BASE ** (-torch.arange(width // 2, device=positions.device) / (width / 2))
    angles = positions[..., None] * frequencies
    pattern = "... k -> ... (two k)" if style == "tiled" else "... k -> ... (k two)"
    return repeat(angles, pattern, two=2)


def rotary_3d(
    ids: Int[Tensor, "b n"],
    grid: TokenGrid,
    head_dim: int,
    style: RotaryStyle = "tiled",
    *,
    side: int | None = None,
) -> RotaryTables:
    """Return tables that rotate the channels of a head by token position: [t | h | w | not rotated].

    `ids` may have one row if all rows are equal. `side` scales height and width so that the last row and column get
    the coordinate `side - 1` (V-JEPA 2.1); None uses token coordinates.
    """
    t, h, w = token_coordinates(ids, grid)
    if side is not None:
        h, w = (x * ((side - 1) / max(n - 1, 1)) for x, n in ((h, grid.h), (w, grid.w)))
    return rotary_of_axes((t, h, w), head_dim, style)


def rotary_of_axes(
    axes: tuple[Tensor, Tensor, Tensor], head_dim: int, style: RotaryStyle = "tiled"
) -> RotaryTables:
    """Return rotary tables for tokens at coordinates t, h and w, in tokens, each (B, N), whole or fractional.

    Each axis rotates `2 * (head_dim // 3 // 2)` channels of a head.
    """
    width = 2 * (head_dim // 3 // 2)
    if width < 2:
        raise SettingError(
            f"rotary positions need head_dim >= 6, got {head_dim}. Use fewer heads or more width."
        )
    turned = [rotary_angles(x, width, style) for x in axes]
    return tables_of_axes(turned, axis=width, head_dim=head_dim)


def tables_of_axes(angles: Sequence[Float[Tensor, "b n k"]], *, axis: int, head_dim: int) -> RotaryTables:
    """Return rotary tables from the angles of the rotated channels of the three axes, K even.

    An axis has `axis` channels; those beyond K, and those of a head beyond the three axes, are not rotated.
    """
    turned = angles[0].shape[-1]
    one = torch.cat([pad(x, (0, axis - turned)) for x in angles], dim=-1)  # angle 0 does not change a channel
    whole = rearrange(pad(one, (0, head_dim - 3 * axis)), "b n d -> b 1 n d")
    if axis % 2 == 0 and head_dim % 2 == 0:
        return tables_of_angles(whole)
    channel = torch.arange(head_dim, device=whole.device)
    inside = torch.where(channel < 3 * axis, channel % axis, turned)  # index of a channel within its axis
    step = torch.where(inside < turned, 1 - 2 * (inside % 2), 0)  # offset of the partner: 1, -1 or 0
    return RotaryTables(cos=whole.cos(), sin=whole.sin() * -step, partner=channel + step)


def tables_of_angles(angles: Float[Tensor, "b 1 n d"]) -> RotaryTables:
    """Return rotary tables from the angle of every channel, for the pairs (0, 1), (2, 3), ..."""
    sign = 2 * (torch.arange(angles.shape[-1], device=angles.device) % 2) - 1
    return RotaryTables(cos=angles.cos(), sin=angles.sin() * sign)


def rotate(x: Float[Tensor, "b heads n d"], tables: RotaryTables) -> Float[Tensor, "b heads n d"]:
    """Rotate queries or keys by their positions: `x * cos + partner(x) * sin`.

    The arithmetic is fp32 whatever the dtype of `x`: in bf16 the angle at position 63 would be wrong by 0.1.
    """
    return torch.addcmul(x * tables.cos, _partners(x, tables), tables.sin).to(x.dtype)


def rotate_back(x: Float[Tensor, "b heads n d"], tables: RotaryTables) -> Float[Tensor, "b heads n d"]:
    """Return the gradient of `rotate`'s input from the gradient of its output: the transpose, rounded once."""
    return torch.add(x * tables.cos, _partners(x * tables.sin, tables)).to(x.dtype)


def _partners(x: Tensor, tables: RotaryTables) -> Tensor:
    """Return the partner of each channel."""
    if tables.partner is not None:
        return x[..., tables.partner]
    pairs = rearrange(x, "b heads n (k two) -> b heads n k two", two=2)
    # the flip and the fused multiply-add read x three times; stacking the two halves took six times as long
    return rearrange(pairs.flip(-1), "b heads n k two -> b heads n (k two)")
