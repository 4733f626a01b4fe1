"""The linear probe: one linear map of pooled tokens."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.layers import init_weights
from vjepa.probes.base import Probe

Pool = Literal["mean", "mean_max"]


def pool_tokens(tokens: Float[Tensor, "b n d"], pool: Pool) -> Float[Tensor, "b f"]:
    """Return one vector per clip: the mean of its tokens (B, D), or their mean and maximum (B, 2 D).

    >>> pool_tokens(torch.tensor([[[0.0], [4.0]]]), "mean_max").tolist()
    [[2.0, 4.0]]
    """
    mean = tokens.mean(dim=1)
    return mean if pool == "mean" else torch.cat([mean, tokens.amax(dim=1)], dim=1)


class LinearProbe(Probe):
    """Class scores as a linear map of pooled tokens.

    Args:
        embed_dim: Width of a token.
        num_classes: Number of classes.
        pool: "mean" of the tokens, or also their maximum ("mean_max"), which preserves small objects.
    """

    def __init__(self, *, embed_dim: int, num_classes: int, pool: Pool = "mean_max") -> None:
        super().__init__()
        self.config: dict[str, Any] = {"embed_dim": embed_dim, "num_classes": num_classes, "pool": pool}
        self.pool: Pool = pool
        self.linear = nn.Linear(embed_dim * (1 if pool == "mean" else 2), num_classes)
        self.apply(init_weights)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Map tokens (B, N, D) to logits (B, classes)."""
        return self.linear(pool_tokens(tokens, self.pool))
