"""Attentive pooling: cross-attention of learned queries to the tokens of a clip."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from timm.layers import Mlp, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.layers.block import INIT_STD, Block, init_weights, rescale_blocks
from vjepa.layers.first_order import first_order
from vjepa.layers.heads import checked_heads

PROBE_NORM_EPS = 1e-5  # layer norms of every released probe; encoders use 1e-6
# numbers of the tokens that a CPU reads at once, so that intermediate results stay in its caches
PART_NUMBERS = 2**19
BlocksOn = Literal["tokens", "query"]


def token_shares(tokens: Float[Tensor, "b n d"], queries: Float[Tensor, "hq d"]) -> Float[Tensor, "b hq n"]:
    """Return the attention weight of each token for each query of `read_tokens`; the weights sum to 1."""
    return _shares(_normed(tokens), queries)


def read_tokens(
    tokens: Float[Tensor, "b n d"],
    queries: Float[Tensor, "hq d"],
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "b hq d"]:
    """Return, for each query, the softmax-weighted mean of each clip's layer-normed tokens.

    Concatenate the queries of several poolers, from `AttentivePooler.token_queries`, to normalise and read
    the tokens only once for all of them. Tokens without gradient are read a few clips at a time, after
    `prepare`, such as a standardisation (default: a cast to the dtype of the queries, none within autocast).
    """
    if not tokens.requires_grad:
        mixes_types = torch.is_autocast_enabled(tokens.device.type)
        kind = tokens.dtype if mixes_types else queries.dtype
        return cast("Tensor", _FrozenReading.apply(tokens, queries, prepare or (lambda part: part.to(kind))))
    assert prepare is None
    normed = _normed(tokens)
    return _shares(normed, queries) @ normed


class _FrozenReading(torch.autograd.Function):
    """Autograd function of `read_tokens` for frozen tokens, which it reads a few clips at a time.

    The backward pass prepares and normalises the tokens again. A copy of all tokens would take longer than that.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, queries: Tensor, prepare: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "b hq d"]:
        shares, mixed = [], []
        for part in tokens.split(_clips_of_a_part(tokens)):
            normed = _normed(prepare(part))
            shares.append(_shares(normed, queries))
            mixed.append(shares[-1] @ normed)
        ctx.save_for_backward(tokens, queries, *shares)
        ctx.prepare = prepare
        kind = tokens.device.type
        ctx.types = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        return torch.cat(mixed)

    @staticmethod
    @first_order
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        tokens, queries, *shares = ctx.saved_tensors
        size = _clips_of_a_part(tokens)
        for_queries = torch.zeros_like(queries)
        parts = zip(tokens.split(size), shares, gradients[0].split(size), strict=True)
        # the backward pass does not inherit the autocast of the forward pass
        with torch.autocast(*ctx.types):
            for part, share, gradient in parts:
                normed = _normed(ctx.prepare(part))
                for_share = (gradient @ normed.mT).to(share.dtype)
                for_scores = torch._softmax_backward_data(for_share, share, -1, share.dtype)
                for_queries += (for_scores @ normed).sum(dim=0)
        return None, for_queries, None


def _clips_of_a_part(tokens: Float[Tensor, "b n d"]) -> int:
    if tokens.device.type != "cpu":
        return max(1, len(tokens))
    return max(1, PART_NUMBERS // tokens.shape[1:].numel())


def _normed(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    return F.layer_norm(tokens, tokens.shape[-1:], eps=PROBE_NORM_EPS)


def _shares(normed: Float[Tensor, "b n d"], queries: Float[Tensor, "hq d"]) -> Float[Tensor, "b hq n"]:
    return (queries @ normed.mT).softmax(dim=-1)


class CrossAttention(nn.Module):
    """Multi-head attention of learned queries to tokens, without an output projection, as in the released code.

    The queries are the same for all clips. So the key projection is applied to the queries, and the value
    projection to the mixed tokens. The sums are the same in another order, and about `head_dim` times fewer than
    if every token were projected to a key and a value.
    """

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = checked_heads(num_heads, embed_dim)
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)

    def token_queries(self, queries: Float[Tensor, "1 q d"]) -> Float[Tensor, "hq d"]:
        """Return one query per head in token space: `token @ query` is the token's score up to a constant."""
        query = rearrange(self.q(queries), "1 q (h k) -> h q k", h=self.num_heads)
        w_key = rearrange(self.kv.weight[: queries.shape[-1]], "(h k) d -> h k d", h=self.num_heads)
        # the bias of the keys adds the same constant to all scores of a query: no effect on the softmax
        return rearrange(query @ w_key, "h q d -> (h q) d") / math.sqrt(query.shape[-1])

    def forward(self, mixed: Float[Tensor, "b hq d"]) -> Float[Tensor, "b q d"]:
        """Return the values (B, Q, D) of the tokens that `read_tokens` mixed."""
        width = mixed.shape[-1]
        w_value = rearrange(self.kv.weight[width:], "(h k) d -> h d k", h=self.num_heads)
        by_head = rearrange(mixed, "b (h q) d -> h (b q) d", h=self.num_heads)
        return rearrange(by_head @ w_value, "h (b q) k -> b q (h k)", b=len(mixed)) + self.kv.bias[width:]


class CrossAttentionBlock(nn.Module):
    """Cross-attention block: `q + CrossAttention(q, norm(x))`, then `q + Mlp(norm(q))`, without a norm of q at first.

    It runs in two halves: call `token_queries`, then `read_tokens`, then `forward`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=PROBE_NORM_EPS)
        self.xattn = CrossAttention(embed_dim=embed_dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=PROBE_NORM_EPS)
        self.mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio))

    def token_queries(self, queries: Float[Tensor, "1 q d"]) -> Float[Tensor, "hq d"]:
        """Return the queries for normalised tokens, scaled by `norm1` (its shift changes no attention weight)."""
        return self.xattn.token_queries(queries) * self.norm1.weight

    def forward(
        self, queries: Float[Tensor, "1 q d"], mixed: Float[Tensor, "b hq d"]
    ) -> Float[Tensor, "b q d"]:
        """Return pooled vectors (B, Q, D) from the queries and the tokens that `read_tokens` mixed."""
        pooled = queries + self.xattn(mixed * self.norm1.weight + self.norm1.bias)
        return pooled + self.mlp(self.norm2(pooled))


class AttentivePooler(nn.Module):
    """Pooler of a clip's tokens to one vector per query (probes of V-JEPA with depth 1, of V-JEPA 2 with depth 4).

    Depth 1 is the cross-attention alone. Each further block is a self-attention block, on the tokens before the
    cross-attention (V-JEPA 2), or on the queries after it (`blocks_on="query"`, V-JEPA 1).
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        depth: int = 1,
        num_queries: int = 1,
        mlp_ratio: float = 4.0,
        blocks_on: BlocksOn = "tokens",
    ) -> None:
        super().__init__()
        if blocks_on not in get_args(BlocksOn):
            raise SettingError(f"blocks_on is {blocks_on!r}. Give 'tokens' or 'query'.")
        self.blocks_on = blocks_on
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
        # as released: V-JEPA 1 counts the cross-attention as the first block, V-JEPA 2 as the last self-attention
        rescale_blocks(self.blocks, first=2 if blocks_on == "query" else 1)
        index = 1 if blocks_on == "query" else max(depth - 1, 1)
        self.cross_attention_block.mlp.fc2.weight.data.div_(math.sqrt(2 * index))

    def token_queries(self) -> Float[Tensor, "hq d"]:
        """Return the queries (heads * Q, D) for `read_tokens`."""
        return self.cross_attention_block.token_queries(self.query_tokens)

    def pool(self, mixed: Float[Tensor, "b hq d"]) -> Float[Tensor, "b q d"]:
        """Return vectors (B, Q, D) from the tokens that `read_tokens` mixed by this pooler's queries."""
        pooled = self.cross_attention_block(self.query_tokens, mixed)
        for block in self.blocks if self.blocks_on == "query" else ():
            pooled = block(pooled)
        return pooled

    def mix(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Apply the blocks that run on the tokens, before `read_tokens`."""
        for block in self.blocks if self.blocks_on == "tokens" else ():
            tokens = block(tokens)
        return tokens

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b q d"]:
        """Pool tokens (B, N, D) to vectors (B, Q, D)."""
        return self.pool(read_tokens(self.mix(tokens), self.token_queries()))
