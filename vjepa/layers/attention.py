"""Multi-head self-attention with optional rotary positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vjepa.errors import SettingError
from vjepa.layers.block_attention import attend_in_blocks
from vjepa.layers.heads import split_heads
from vjepa.layers.position import RotaryTables

# Longest sequence that a CPU mixes by plain products in bf16: the fused kernel takes 2 to 6 times as long
# up to here (tools/bench_attention.py), and beyond it the square of weights no longer fits the caches.
MAX_EXPLICIT = 512


def attend(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n d"],
    visible: Bool[Tensor, "n n"] | None = None,
) -> Float[Tensor, "b h n d"]:
    """Softmax attention of every token to every token that it may see, by whichever way is faster."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    if query.shape[2] <= MAX_EXPLICIT:
        return _mix(query * query.shape[-1] ** -0.5, key, value, visible)
    if visible is not None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    return attend_in_blocks(query, key, value)


def _mix(scaled: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attention by two plain products."""
    scores = scaled @ key.transpose(-1, -2)
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(dim=-1) @ value


class Attention(nn.Module):
    """Self-attention: one fused projection to queries, keys and values.

    Args:
        embed_dim: Width of a token.
        num_heads: Heads; must divide `embed_dim`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise SettingError(f"embed_dim (={embed_dim}) must be divisible by num_heads (={num_heads}).")
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        rotary: RotaryTables | None = None,
        visible: Bool[Tensor, "n n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Mix the tokens of each row.

        Args:
            tokens: Tokens (B, N, D).
            rotary: Turns queries and keys by their positions.
            visible: True where the token of the row may attend to that of the column; None: everywhere.
        """
        query, key, value = split_heads(self.qkv(tokens), self.num_heads, rotary)
        mixed = attend(query, key, value, visible)
        return self.proj(rearrange(mixed, "b h n d -> b n (h d)"))
