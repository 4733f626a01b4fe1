"""The MLP of most released models, with less of its hidden layer in memory."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Of the hidden layer at a time, without gradients on a CPU. What is larger than 32 MB is taken from the system anew
# each time, and costs as much again as computing it
BLOCK_BYTES = 16 * 2**20


class GeluMlp(nn.Module):
    """`fc2(gelu(fc1(x)))`. For the backward pass it holds one hidden layer: the gelu is computed again.

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
        if torch.compiler.is_compiling():  # which decides itself what to keep
            return self._of(tokens)
        if torch.is_grad_enabled():
            return cast("Tensor", _GeluLinear.apply(self.fc1(tokens), self.fc2.weight, self.fc2.bias))
        if tokens.device.type != "cpu":
            return self._of(tokens)
        rows = max(1, BLOCK_BYTES // (tokens.element_size() * self.fc1.out_features))
        parts = [self._of(part) for part in tokens.flatten(0, 1).split(rows)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(tokens.shape)

    def _of(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class _GeluLinear(torch.autograd.Function):
    """A linear map of gelu(hidden), in the type of `hidden`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(F.gelu(hidden), weight.to(hidden.dtype), bias.to(hidden.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight = ctx.saved_tensors
        for_hidden = torch.ops.aten.gelu_backward(gradient @ weight.to(gradient.dtype), hidden)
        arriving = gradient.flatten(0, -2)
        for_weight = arriving.T @ F.gelu(hidden).flatten(0, -2)
        return for_hidden, for_weight.to(weight.dtype), arriving.sum(0).to(weight.dtype)
