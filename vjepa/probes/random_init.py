"""Networks with random weights, to compare a trained one with."""

from __future__ import annotations

from typing import TypeVar

import torch

from vjepa.models import Predictor, VideoEncoder

Network = TypeVar("Network", VideoEncoder, Predictor)


def random_init_like(network: Network, *, seed: int) -> Network:
    """Return a network of the same architecture with random weights, in eval mode, on the same device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random = type(network)(**network.config)
    return random.to(next(network.parameters()).device).eval()
