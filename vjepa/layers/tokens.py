"""Choosing tokens by id."""

from __future__ import annotations

from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor


def gather_tokens(tokens: Float[Tensor, "b n d"], ids: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """The tokens named by `ids`, row by row, in the order of `ids`.

    Args:
        tokens: Tokens (B, N, D).
        ids: Token ids (B, K), each in [0, N).

    Returns:
        Chosen tokens (B, K, D).
    """
    return tokens.gather(1, repeat(ids, "b k -> b k d", d=tokens.shape[-1]))
