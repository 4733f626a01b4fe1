"""The gated MLP of some released models (arXiv 2002.05202)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SwiGlu(nn.Module):
    """Gated MLP with biases: `fc3(silu(fc1(x)) * fc2(x))`; the released files use the same names."""

    def __init__(self, *, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(embed_dim, hidden_dim)
        self.fc3 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Map tokens (B, N, D) to tokens (B, N, D)."""
        return self.fc3(F.silu(self.fc1(tokens)) * self.fc2(tokens))


def two_thirds(hidden_dim: int) -> int:
    """Return two thirds of `hidden_dim`, rounded up to a multiple of 8: the gated width with about as many weights.

    >>> two_thirds(128)
    88
    """
    return -(int(2 * hidden_dim / 3) // -8) * 8
