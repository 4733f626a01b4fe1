"""The probe interface: from tokens of a frozen encoder to class scores, with standardised tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.errors import VjepaError

VARIANCE_FLOOR = 1e-8  # a channel that never changes is divided by 1e-4, not by 0
# limits of one chunk, as the tokens may lie in a file larger than memory
CHUNK_CLIPS, CHUNK_TOKENS = 256, 256 * 2048


class ProbeError(VjepaError, ValueError):
    """Labels, videos or a probe folder that no probe can be made from; the message says what to change."""


def clips_per_chunk(tokens: Float[Tensor, "clips n d"]) -> int:
    """Return how many clips to process at a time: 256, or fewer if a clip has more than 2048 tokens."""
    return max(1, min(CHUNK_CLIPS, CHUNK_TOKENS // tokens.shape[1]))


class Probe(nn.Module, ABC):
    """Class scores from the tokens of a clip.

    `vjepa probe --probe my_package.MyProbe` builds a subclass from the keyword arguments `embed_dim` and `num_classes`;
    its other arguments need defaults.
    """

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Map tokens (B, N, D) to logits (B, classes)."""


class Standardize(nn.Module):
    """Standardisation of each channel by a mean and a standard deviation that are saved with the weights.

    Tokens of a pre-trained encoder share a large constant component, which would hide their differences from a probe.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("std", torch.ones(embed_dim))

    def measure(self, tokens: Float[Tensor, "clips n d"]) -> None:
        """Set the mean and the standard deviation to those of the training clips."""
        total = torch.zeros(tokens.shape[-1], dtype=torch.float64, device=tokens.device)
        squares = torch.zeros_like(total)
        for chunk in tokens.split(clips_per_chunk(tokens)):
            channels = chunk.flatten(0, 1).double()
            total += channels.sum(dim=0)
            squares += channels.square().sum(dim=0)
        count = tokens.shape[0] * tokens.shape[1]
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self.mean.copy_(mean)
        self.std.copy_((variance + VARIANCE_FLOOR).sqrt())

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return standardised tokens in fp32, from tokens of any float type."""
        return torch.addcmul(-self.mean / self.std, tokens.float(), 1 / self.std)  # one pass over the tokens


class StandardizedProbe(Probe):
    """A probe with the standardisation of its tokens."""

    def __init__(self, standardize: Standardize, probe: Probe) -> None:
        super().__init__()
        self.config = {"embed_dim": len(standardize.mean)}
        self.standardize = standardize
        self.probe = probe

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Map the encoder's tokens (B, N, D) to logits (B, classes)."""
        return cast("Tensor", self.probe(self.standardize(tokens)))
