"""Queries, keys and values of one fused projection, by head, turned by their positions."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from vjepa.layers.position import RotaryTables, rotate, rotate_back


def split_heads(
    projected: Float[Tensor, "b n width"], num_heads: int, rotary: RotaryTables | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (B, heads, N, d).

    With positions they are tensors of their own, and nothing holds `projected` until the backward pass: parts of it
    beside turned copies of two others would be five thirds of what is needed.

    Args:
        projected: What the projection gives (B, N, 3 * heads * d).
        num_heads: Heads.
        rotary: Turns queries and keys.
    """
    parts = rearrange(projected, "b n (three h d) -> three b h n d", three=3, h=num_heads)
    if rotary is None:
        query, key, value = parts.unbind(0)
        return query, key, value
    turned: tuple[Tensor, Tensor, Tensor] = _Turned.apply(parts, rotary.cos, rotary.sin, rotary.partner)
    return turned


class _Turned(torch.autograd.Function):
    """`split_heads` with positions."""

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
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin, partner = ctx.saved_tensors
        tables = RotaryTables(cos=cos, sin=sin, partner=partner)
        query, key, value = gradients
        batch, heads, length, width = value.shape
        # laid out as the projection is, which so takes its gradient without a copy
        whole = value.new_empty(batch, length, 3, heads, width)
        parts = rearrange(whole, "b n three h d -> three b h n d")
        for place, found in zip(
            parts, (rotate_back(query, tables), rotate_back(key, tables), value), strict=True
        ):
            place.copy_(found)
        return parts, None, None, None
