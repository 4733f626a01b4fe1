"""Networks with random weights, to compare a trained one with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from vjepa.models import Predictor, VideoEncoder

Made = TypeVar("Made")
Network = TypeVar("Network", VideoEncoder, Predictor)


def random_init_like(network: Network, *, seed: int) -> Network:
    """Return a network of the same architecture with random weights, in eval mode, on the same device."""
    random = seeded(lambda: type(network)(**network.config), seed)
    return random.to(next(network.parameters()).device).eval()


def seeded(make: Callable[[], Made], seed: int) -> Made:
    """Return what `make` makes, with weights drawn by the seed; the process keeps its random state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()
