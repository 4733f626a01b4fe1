"""Split a fused projection into queries, keys and values per head, and rotate them by their positions."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.layers.first_order import first_order
from vjepa.layers.position import RotaryTables, rotate, rotate_back


def checked_heads(num_heads: int, embed_dim: int) -> int:
    """Return `num_heads`; raise `SettingError` if it does not divide `embed_dim`."""
    if embed_dim % num_heads:
        raise SettingError(f"embed_dim (={embed_dim}) must be divisible by num_heads (={num_heads}).")
    return num_heads


def split_heads(
    projected: Float[Tensor, "b n width"], num_heads: int, rotary: RotaryTables | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, each (B, heads, N, d).

    With `rotary` all three are new tensors, so `projected` is freed before the backward pass. To keep it beside
    rotated copies of queries and keys would need five thirds of the memory.
    """
    parts = rearrange(projected, "b n (three h d) -> three b h n d", three=3, h=num_heads)
    if rotary is None:
        query, key, value = parts.unbind(0)
        return query, key, value
    turned: tuple[Tensor, Tensor, Tensor] = _Turned.apply(parts, rotary.cos, rotary.sin, rotary.partner)
    return turned


class _Turned(torch.autograd.Function):
    """Autograd function of `split_heads` with rotary positions."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        parts: Tensor, cos: Tensor, sin: Tensor, partner: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        tables = RotaryTables(cos=cos, sin=sin, partner=partner)
        query, key, value = parts.unbind(0)
        return rotate(query, tables).contiguous(), rotate(key, tables).contiguous(), value.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    @first_order
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin, partner = ctx.saved_tensors
        tables = RotaryTables(cos=cos, sin=sin, partner=partner)
        query, key, value = gradients
        batch, heads, length, width = value.shape
        # the memory layout of the projection, which therefore receives its gradient without a copy
        whole = value.new_empty(batch, length, 3, heads, width)
        parts = rearrange(whole, "b n three h d -> three b h n d")
        found = (rotate_back(query, tables), rotate_back(key, tables), value)
        for place, gradient in zip(parts, found, strict=True):
            place.copy_(gradient)
        return parts, None, None, None
