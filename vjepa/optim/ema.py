"""Exponential moving averages of networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

EmaPair = tuple[nn.Module, nn.Module]  # (average, source)


@torch.no_grad()
def ema_update(pairs: Sequence[EmaPair], momentum: float) -> None:
    """Move each average towards its source: `average = momentum * average + (1 - momentum) * source`."""
    for average, source in pairs:
        torch._foreach_lerp_(list(average.parameters()), list(source.parameters()), 1.0 - momentum)


@torch.no_grad()
def ema_distance(pairs: Sequence[EmaPair]) -> Float[Tensor, ""]:
    """Norm of the difference between averages and sources over the norm of the sources."""
    difference, norm = torch.zeros(()), torch.zeros(())
    for average, source in pairs:
        for a, s in zip(average.parameters(), source.parameters(), strict=True):
            difference = difference.to(a.device) + (a - s).square().sum()
            norm = norm.to(a.device) + s.square().sum()
    return (difference / norm.clamp(min=1e-12)).sqrt()
