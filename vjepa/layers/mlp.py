"""The MLP of most released models, which holds one hidden layer for the backward pass and not two."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class GeluMlp(nn.Module):
    """`fc2(gelu(fc1(x)))`; the gelu is computed again in the backward pass, from what went into it.

    Args:
        embed_dim: Width of a token.
        hidden_dim: Width between the projections.
    """

    def __init__(self, *, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Tokens (B, N, D) to tokens (B, N, D)."""
        if torch.compiler.is_compiling():  # which decides itself what to compute again
            return self.fc2(F.gelu(self.fc1(tokens)))
        return cast("Tensor", _GeluLinear.apply(self.fc1(tokens), self.fc2.weight, self.fc2.bias))


class _GeluLinear(torch.autograd.Function):
    """A linear map of gelu(hidden), in the type of `hidden`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.bias_dtype = bias.dtype
        return F.linear(F.gelu(hidden), weight.to(hidden.dtype), bias.to(hidden.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight = ctx.saved_tensors
        for_hidden = torch.ops.aten.gelu_backward(gradient @ weight.to(gradient.dtype), hidden)
        rows = gradient.flatten(0, -2)
        for_weight = rows.T @ F.gelu(hidden).flatten(0, -2)
        return for_hidden, for_weight.to(weight.dtype), rows.sum(0).to(ctx.bias_dtype)
