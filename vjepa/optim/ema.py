"""Exponential moving averages of networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

EmaPair = tuple[nn.Module, nn.Module]  # (average, source)


@torch.no_grad()
def ema_update(pairs: Sequence[EmaPair], momentum: float) -> None:
    """Move each average towards its source: `average = momentum * average + (1 - momentum) * source`.

    Average and source are sharded in the same way, so each rank updates its own shard without communication.
    """
    averages = [_own_part(weight) for average, _ in pairs for weight in average.parameters()]
    sources = [_own_part(weight) for _, source in pairs for weight in source.parameters()]
    torch._foreach_lerp_(averages, sources, 1.0 - momentum)


@torch.no_grad()
def ema_distance(pairs: Sequence[EmaPair]) -> Float[Tensor, ""]:
    """Return the norm of the difference between averages and sources, divided by the norm of the sources."""
    difference, norm = torch.zeros(()), torch.zeros(())
    for average, source in pairs:
        for a, s in zip(average.parameters(), source.parameters(), strict=True):
            difference = difference.to(a.device) + gathered((a - s).square().sum())
            norm = norm.to(a.device) + gathered(s.square().sum())
    return (difference / norm.clamp(min=1e-12)).sqrt()


def gathered(tensor: Tensor) -> Tensor:
    """Return a sharded tensor in full, which every rank must call together; return any other tensor unchanged."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _own_part(tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
