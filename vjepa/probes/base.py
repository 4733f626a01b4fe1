"""What a probe is: tokens of a frozen encoder to class scores; and the standardisation in front of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.errors import VjepaError

VARIANCE_FLOOR = 1e-8  # a channel that never changes is divided by 1e-4, not by 0
CHUNK_CLIPS, CHUNK_TOKENS = (
    256,
    256 * 2048,
)  # looked at in one go: features may lie in a file larger than memory


class ProbeError(VjepaError, ValueError):
    """Labels, videos or a probe folder that a probe cannot be made of; the message says what to change."""


def clips_at_once(tokens: Float[Tensor, "clips n d"]) -> int:
    """How many clips are looked at in one go: 256, fewer where a clip has more than 2048 tokens."""
    return max(1, min(CHUNK_CLIPS, CHUNK_TOKENS // tokens.shape[1]))


class Probe(nn.Module, ABC):
    """Scores of classes from the tokens of a clip."""

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Tokens (B, N, D) to logits (B, classes)."""


class Standardize(nn.Module):
    """Each channel less its mean, over its standard deviation, both measured once and kept with the weights.

    Tokens of a pre-trained encoder share a large constant component, beside which a probe does not see what
    differs.

    Args:
        embed_dim: Width of a token.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("std", torch.ones(embed_dim))

    def measure(self, tokens: Float[Tensor, "clips n d"]) -> None:
        """Take mean and standard deviation from the tokens of the training clips."""
        total = torch.zeros(tokens.shape[-1], dtype=torch.float64, device=tokens.device)
        squares = torch.zeros_like(total)
        for part in tokens.split(clips_at_once(tokens)):
            channels = part.flatten(0, 1).double()
            total += channels.sum(dim=0)
            squares += channels.square().sum(dim=0)
        count = tokens.shape[0] * tokens.shape[1]
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self.mean.copy_(mean)
        self.std.copy_((variance + VARIANCE_FLOOR).sqrt())

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Tokens of any float type to standardised fp32."""
        return torch.addcmul(-self.mean / self.std, tokens.float(), 1 / self.std)  # one pass over the tokens


class StandardizedProbe(Probe):
    """A probe that standardises its tokens first: what is saved, and what classifies.

    Args:
        standardize: The measured standardisation.
        probe: The probe behind it.
    """

    def __init__(self, standardize: Standardize, probe: Probe) -> None:
        super().__init__()
        self.standardize = standardize
        self.probe = probe

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Tokens (B, N, D), as the encoder gave them, to logits (B, classes)."""
        return cast("Tensor", self.probe(self.standardize(tokens)))
