"""Rotary positions whose frequencies are stored in the checkpoint per block (intuitive physics, arXiv 2502.11831)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vjepa.errors import SettingError
from vjepa.layers.position import BASE, RotaryTables, tables_of_axes, token_coordinates
from vjepa.types import TokenGrid

NAMES = ("d_rotary_emb", "h_rotary_emb", "w_rotary_emb")  # of time, height, width in the released files


class RotaryFrequencies(nn.Module):
    """Frequencies of one axis of one block, in radians per token; stored with the weights, not trained.

    Args:
        width: Channels of the axis, at least 2; if it is odd, the last channel is not rotated. As in the released
            code, the exponents are fractions of this width and not of the even number below it.
    """

    freqs: Tensor  # (width // 2,)

    def __init__(self, *, width: int) -> None:
        super().__init__()
        exponents = 2 * torch.arange(width // 2, device="cpu", dtype=torch.float32) / width
        self.register_buffer("freqs", BASE**-exponents)


def store_frequencies(blocks: Iterable[nn.Module], head_dim: int) -> None:
    """Add frequencies to each block's attention, one third of a head per axis."""
    width = head_dim // 3
    if width < 2:
        raise SettingError(
            f"rotary positions need head_dim >= 6, got {head_dim}. Use fewer heads or more width."
        )
    for block in blocks:
        for name in NAMES:
            block.get_submodule("attn").add_module(name, RotaryFrequencies(width=width))


def stored_tables(
    blocks: Iterable[nn.Module], ids: Int[Tensor, "b n"], grid: TokenGrid, head_dim: int
) -> list[RotaryTables]:
    """Return the tables of each block, which `store_frequencies` has prepared.

    Blocks with equal frequencies, as all have at first, share one table. `ids` may have one row if all are equal.
    """
    held = [
        [cast("RotaryFrequencies", block.get_submodule(f"attn.{name}")).freqs for name in NAMES]
        for block in blocks
    ]
    frequencies = torch.stack([torch.stack(three) for three in held])
    distinct, which = torch.unique(frequencies, dim=0, return_inverse=True)
    tables = [_tables(three, ids, grid, head_dim) for three in distinct]
    return [tables[i] for i in which.tolist()]


def _tables(
    frequencies: Float[Tensor, "3 k"], ids: Int[Tensor, "b n"], grid: TokenGrid, head_dim: int
) -> RotaryTables:
    axes = token_coordinates(ids, grid)
    angles = [x[..., None] * f.float() for x, f in zip(axes, frequencies, strict=True)]
    doubled = [each.repeat_interleave(2, dim=-1) for each in angles]
    return tables_of_axes(doubled, axis=head_dim // 3, head_dim=head_dim)
