"""Attentive pooling: learned queries read a clip's tokens."""

from __future__ import annotations

import math

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from timm.layers import Mlp, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.layers.block import INIT_STD, Block, init_weights, rescale_blocks

PROBE_NORM_EPS = 1e-5  # of every released probe; encoders use 1e-6


class CrossAttention(nn.Module):
    """Multi-head attention of learned queries to tokens; there is no output projection, as released.

    The queries are the same for all clips, so their product with the key projection is taken once, and the
    value projection after the tokens are mixed: the same sums in another order, and about `head_dim` times fewer
    of them than projecting every token to a key and a value.

    Args:
        embed_dim: Width of a token.
        num_heads: Heads; must divide `embed_dim`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim (={embed_dim}) must be divisible by num_heads (={num_heads}).")
        self.num_heads = num_heads
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)

    def forward(
        self, queries: Float[Tensor, "1 q d"], tokens: Float[Tensor, "b n d"], norm: nn.LayerNorm
    ) -> Float[Tensor, "b q d"]:
        """Mix the tokens, layer-normed by `norm`, for each query."""
        query = rearrange(self.q(queries), "1 q (h k) -> h q k", h=self.num_heads)
        w_key, w_value = rearrange(self.kv.weight, "(two h k) d -> two h k d", two=2, h=self.num_heads)
        b_value = self.kv.bias[tokens.shape[-1] :]  # the bias of the keys moves all scores alike: no effect
        look = (query @ w_key) * norm.weight / math.sqrt(query.shape[-1])  # (h q d)

        normed = F.layer_norm(tokens, norm.normalized_shape, eps=norm.eps)  # its scale and shift go below
        scores = normed @ rearrange(look, "h q d -> d (h q)")
        share = rearrange(scores, "b n hq -> b hq n").softmax(dim=-1)
        mixed = (share @ normed) * norm.weight + norm.bias
        mixed = rearrange(mixed, "b (h q) d -> b h q d", h=self.num_heads)
        values = torch.einsum("bhqd,hkd->bqhk", mixed, w_value)
        return rearrange(values, "b q h k -> b q (h k)") + b_value


class CrossAttentionBlock(nn.Module):
    """`q + CrossAttention(q, norm(x))`, then `q + Mlp(norm(q))`; the queries are not normed before attention.

    Args:
        embed_dim: Width of a token.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLP over `embed_dim`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=PROBE_NORM_EPS)
        self.xattn = CrossAttention(embed_dim=embed_dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=PROBE_NORM_EPS)
        self.mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio))

    def forward(
        self, queries: Float[Tensor, "1 q d"], tokens: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b q d"]:
        """What each query read from the tokens of each clip."""
        pooled = queries + self.xattn(queries, tokens, self.norm1)
        return pooled + self.mlp(self.norm2(pooled))


class AttentivePooler(nn.Module):
    """Tokens of a clip to one vector a query (spec of V-JEPA's probes; V-JEPA: depth 1, V-JEPA 2: depth 4).

    Args:
        embed_dim: Width of a token.
        num_heads: Attention heads.
        depth: 1 for the cross-attention alone; each further one is a self-attention block on the tokens before it.
        num_queries: Learned queries.
        mlp_ratio: Hidden width of the MLPs over `embed_dim`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        depth: int = 1,
        num_queries: int = 1,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(
                f"depth must be at least 1 (the cross-attention alone), got {depth}. Give 1 or 4."
            )
        self.query_tokens = nn.Parameter(torch.zeros(1, num_queries, embed_dim))
        self.blocks = nn.ModuleList(
            Block(embed_dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, norm_eps=PROBE_NORM_EPS)
            for _ in range(depth - 1)
        )
        self.cross_attention_block = CrossAttentionBlock(
            embed_dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio
        )
        self.apply(init_weights)
        trunc_normal_(self.query_tokens, std=INIT_STD)
        rescale_blocks(self.blocks)
        # as released: counted like the block before it, not like one more
        self.cross_attention_block.mlp.fc2.weight.data.div_(math.sqrt(2 * max(depth - 1, 1)))

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b q d"]:
        """Tokens (B, N, D) to vectors (B, Q, D)."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.cross_attention_block(self.query_tokens, tokens)
