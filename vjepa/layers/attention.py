"""Multi-head self-attention with optional rotary positions."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.layers.position import RotaryTables, rotate


class Attention(nn.Module):
    """Self-attention: one fused projection to queries, keys and values, no mask.

    Args:
        embed_dim: Width of a token.
        num_heads: Heads; must divide `embed_dim`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim (={embed_dim}) must be divisible by num_heads (={num_heads}).")
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self, tokens: Float[Tensor, "b n d"], rotary: RotaryTables | None = None
    ) -> Float[Tensor, "b n d"]:
        """Mix the tokens of each row; `rotary` turns queries and keys by their positions."""
        split = rearrange(self.qkv(tokens), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        query, key, value = split.unbind(0)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(rearrange(mixed, "b h n d -> b n (h d)"))
