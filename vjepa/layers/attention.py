"""Multi-head self-attention with optional rotary positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vjepa.layers.block_attention import attend_in_blocks
from vjepa.layers.heads import checked_heads, split_heads
from vjepa.layers.position import RotaryTables

# Longest sequence for which a CPU uses plain matrix products in bf16. Up to this length the fused kernel takes
# 2 to 6 times as long (tools/bench_attention.py); beyond it the N x N weights no longer fit the caches.
MAX_EXPLICIT = 512


def attend(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n d"],
    visible: Bool[Tensor, "n n"] | None = None,
) -> Float[Tensor, "b h n d"]:
    """Compute softmax attention by the fastest method for the device, the dtype and the length.

    `visible` is True where the row's token may attend to the column's token; None allows all pairs.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    if query.shape[2] <= MAX_EXPLICIT:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if visible is not None:
            scores = scores.masked_fill(~visible, -torch.inf)
        return scores.softmax(dim=-1) @ value
    if visible is not None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    return attend_in_blocks(query, key, value)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values."""

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = checked_heads(num_heads, embed_dim)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        rotary: RotaryTables | None = None,
        visible: Bool[Tensor, "n n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Apply self-attention to the tokens of each clip; `attend` describes `visible`."""
        query, key, value = split_heads(self.qkv(tokens), self.num_heads, rotary)
        mixed = attend(query, key, value, visible)
        return self.proj(rearrange(mixed, "b h n d -> b n (h d)"))
