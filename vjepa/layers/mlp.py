"""The MLP of most released models, which does not keep its hidden layer in memory."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.layers.first_order import first_order

# Bytes of the hidden layer that a CPU computes at once without gradients. The system allocates anything above
# 32 MB again each time, which costs as much as the computation
BLOCK_BYTES = 16 * 2**20


class GeluMlp(nn.Module):
    """Two projections with a GELU: `fc2(gelu(fc1(x)))`. The backward pass recomputes the hidden layer from the input.

    This costs about one sixth more compute per MLP and saves about one third of a block's activation memory.
    """

    def __init__(self, *, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Map tokens (B, N, D) to tokens (B, N, D)."""
        if torch.compiler.is_compiling():  # the compiler decides what to keep in memory
            return self._of(tokens)
        if torch.is_grad_enabled():
            return cast(
                "Tensor",
                _Gelu.apply(tokens, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias),
            )
        if tokens.device.type != "cpu":
            return self._of(tokens)
        rows = max(1, BLOCK_BYTES // (tokens.element_size() * self.fc1.out_features))
        parts = [self._of(part) for part in tokens.flatten(0, 1).split(rows)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(tokens.shape)

    def _of(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class _Gelu(torch.autograd.Function):
    """Autograd function of `GeluMlp`, which computes in the autocast dtype where autocast is on."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
    ) -> Tensor:
        dtype = tokens.dtype
        if torch.is_autocast_enabled(tokens.device.type):
            dtype = torch.get_autocast_dtype(tokens.device.type)
        ctx.type_of_tokens = tokens.dtype
        tokens = tokens.to(dtype)
        ctx.save_for_backward(tokens, weight1, bias1, weight2)
        hidden = F.linear(tokens, weight1.to(dtype), bias1.to(dtype))
        return F.linear(F.gelu(hidden), weight2.to(dtype), bias2.to(dtype))

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight1, bias1, weight2 = ctx.saved_tensors
        trained = any(ctx.needs_input_grad[1:])  # False where only the tokens need a gradient
        narrow = weight1.to(tokens.dtype)
        hidden = F.linear(tokens, narrow, bias1.to(tokens.dtype))
        arriving = gradient.flatten(0, -2)
        for_weight2 = arriving.T @ F.gelu(hidden).flatten(0, -2) if trained else None
        for_hidden = torch.ops.aten.gelu_backward(gradient @ weight2.to(gradient.dtype), hidden)
        del hidden
        for_tokens = (for_hidden @ narrow).to(ctx.type_of_tokens)
        if for_weight2 is None:
            return for_tokens, None, None, None, None
        flat = for_hidden.flatten(0, -2)
        return (
            for_tokens,
            (flat.T @ tokens.flatten(0, -2)).to(weight1.dtype),
            flat.sum(0).to(weight1.dtype),
            for_weight2.to(weight2.dtype),
            arriving.sum(0).to(weight2.dtype),
        )
