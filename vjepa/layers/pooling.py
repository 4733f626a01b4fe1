"""Attentive pooling: learned queries read a clip's tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from timm.layers import Mlp, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.layers.block import INIT_STD, Block, init_weights, rescale_blocks

PROBE_NORM_EPS = 1e-5  # of every released probe; encoders use 1e-6
PART_NUMBERS = 2**19  # of tokens that a CPU reads at a time: what is made of them stays in its caches


def token_shares(
    tokens: Float[Tensor, "b n d"], looks: Float[Tensor, "looks d"]
) -> Float[Tensor, "b looks n"]:
    """The share of each token in what each look reads of a clip; they add up to 1. See `read_tokens`."""
    return _shares(_normed(tokens), looks)


def read_tokens(
    tokens: Float[Tensor, "b n d"],
    looks: Float[Tensor, "looks d"],
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "b looks d"]:
    """The layer-normed tokens of each clip, mixed by a softmax of their products with each look.

    Looks of several poolers may stand together: the tokens are then normed and read once for all.

    Args:
        tokens: Tokens (B, N, D).
        looks: Directions (looks, D) from `CrossAttentionBlock.look`.
        prepare: What is done to frozen tokens first, clip by clip, such as a standardisation (default: outside of
            autocast they are cast to the type of the looks).
    """
    if not tokens.requires_grad:
        mixes_types = torch.is_autocast_enabled(tokens.device.type)
        kind = tokens.dtype if mixes_types else looks.dtype
        return cast("Tensor", _FrozenReading.apply(tokens, looks, prepare or (lambda part: part.to(kind))))
    assert prepare is None
    normed = _normed(tokens)
    return _shares(normed, looks) @ normed


class _FrozenReading(torch.autograd.Function):
    """`read_tokens` of frozen tokens: a few clips at a time, prepared and normed again for the backward pass.

    So no copy of all tokens is made, which takes longer than the arithmetic.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, looks: Tensor, prepare: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "b looks d"]:
        shares, mixed = [], []
        for part in tokens.split(_clips_of_a_part(tokens)):
            normed = _normed(prepare(part))
            shares.append(_shares(normed, looks))
            mixed.append(shares[-1] @ normed)
        ctx.save_for_backward(tokens, looks, *shares)
        ctx.prepare = prepare
        kind = tokens.device.type
        ctx.types = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        return torch.cat(mixed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        tokens, looks, *shares = ctx.saved_tensors
        size = _clips_of_a_part(tokens)
        for_looks = torch.zeros_like(looks)
        parts = zip(tokens.split(size), shares, gradients[0].split(size), strict=True)
        with torch.autocast(*ctx.types):  # the backward pass begins outside of that of the forward pass
            for part, share, gradient in parts:
                normed = _normed(ctx.prepare(part))
                for_share = (gradient @ normed.mT).to(share.dtype)
                for_scores = torch._softmax_backward_data(for_share, share, -1, share.dtype)
                for_looks += (for_scores @ normed).sum(dim=0)
        return None, for_looks, None


def _clips_of_a_part(tokens: Float[Tensor, "b n d"]) -> int:
    if tokens.device.type != "cpu":
        return max(1, len(tokens))
    return max(1, PART_NUMBERS // tokens.shape[1:].numel())


def _normed(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    return F.layer_norm(tokens, tokens.shape[-1:], eps=PROBE_NORM_EPS)


def _shares(normed: Float[Tensor, "b n d"], looks: Float[Tensor, "looks d"]) -> Float[Tensor, "b looks n"]:
    return (looks @ normed.mT).softmax(dim=-1)


class CrossAttention(nn.Module):
    """Multi-head attention of learned queries to tokens; there is no output projection, as released.

    The queries are the same for all clips, so the key projection is applied to them and the value projection
    to the mixed tokens: the same sums in another order, and some `head_dim` times fewer of them than
    projecting every token to a key and a value.

    Args:
        embed_dim: Width of a token.
        num_heads: Heads; must divide `embed_dim`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise SettingError(f"embed_dim (={embed_dim}) must be divisible by num_heads (={num_heads}).")
        self.num_heads = num_heads
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)

    def look(self, queries: Float[Tensor, "1 q d"]) -> Float[Tensor, "looks d"]:
        """What each head of each query looks for: `token @ look` is the token's score, but for a constant."""
        query = rearrange(self.q(queries), "1 q (h k) -> h q k", h=self.num_heads)
        w_key = rearrange(self.kv.weight[: queries.shape[-1]], "(h k) d -> h k d", h=self.num_heads)
        # the bias of the keys moves all scores of a look alike: no effect
        return rearrange(query @ w_key, "h q d -> (h q) d") / math.sqrt(query.shape[-1])

    def forward(self, mixed: Float[Tensor, "b looks d"]) -> Float[Tensor, "b q d"]:
        """Values of the tokens that each look mixed."""
        width = mixed.shape[-1]
        w_value = rearrange(self.kv.weight[width:], "(h k) d -> h d k", h=self.num_heads)
        by_head = rearrange(mixed, "b (h q) d -> h (b q) d", h=self.num_heads)
        return rearrange(by_head @ w_value, "h (b q) k -> b q (h k)", b=len(mixed)) + self.kv.bias[width:]


class CrossAttentionBlock(nn.Module):
    """`q + CrossAttention(q, norm(x))`, then `q + Mlp(norm(q))`; the queries are not normed before attention.

    In two halves, `look` before the tokens are read and `forward` after, with `read_tokens` between.

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

    def look(self, queries: Float[Tensor, "1 q d"]) -> Float[Tensor, "looks d"]:
        """Directions to read normed tokens by; `norm1` scales them (its shift changes no share)."""
        return self.xattn.look(queries) * self.norm1.weight

    def forward(
        self, queries: Float[Tensor, "1 q d"], mixed: Float[Tensor, "b looks d"]
    ) -> Float[Tensor, "b q d"]:
        """What each query makes of the tokens mixed for it."""
        pooled = queries + self.xattn(mixed * self.norm1.weight + self.norm1.bias)
        return pooled + self.mlp(self.norm2(pooled))


class AttentivePooler(nn.Module):
    """Tokens of a clip to one vector a query (spec of V-JEPA's probes; V-JEPA: depth 1, V-JEPA 2: depth 4).

    Args:
        embed_dim: Width of a token.
        num_heads: Attention heads.
        depth: 1 for the cross-attention alone; each further one puts a self-attention block on the
            tokens before it.
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
            raise SettingError(
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

    def look(self) -> Float[Tensor, "looks d"]:
        """Directions by which the queries read tokens, see `read_tokens`."""
        return self.cross_attention_block.look(self.query_tokens)

    def pool(self, mixed: Float[Tensor, "b looks d"]) -> Float[Tensor, "b q d"]:
        """Vectors (B, Q, D) from what `read_tokens` mixed by this pooler's looks."""
        return self.cross_attention_block(self.query_tokens, mixed)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b q d"]:
        """Tokens (B, N, D) to vectors (B, Q, D)."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.pool(read_tokens(tokens, self.look()))
