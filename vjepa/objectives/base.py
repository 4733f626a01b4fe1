"""What an objective is: the networks of a method, its masks, and its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.models import Predictor, VideoEncoder
from vjepa.optim import EmaPair
from vjepa.types import ClipBatch, LossOutput


class Objective(nn.Module, ABC):
    """Owns the networks of a method and turns a batch into a loss.

    Attributes:
        context_encoder: The encoder that is trained.
        target_encoder: The encoder to use afterwards; its moving average.
        predictor: From context to targets.
    """

    context_encoder: VideoEncoder
    target_encoder: VideoEncoder
    predictor: Predictor

    @abstractmethod
    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """Loss of a batch.

        Args:
            batch: Clips, `video` (B, C, T, H, W).
            generator: Source of the masks.

        Returns:
            Loss with gradient, scalars to log, and features to judge the run's health by.
        """

    @abstractmethod
    def ema_pairs(self) -> list[EmaPair]:
        """Pairs (average, source) to update after each optimiser step."""


def mean_distance(
    predictions: Float[Tensor, "b n d"], targets: Float[Tensor, "b n d"], exponent: float
) -> Float[Tensor, ""]:
    """Mean of |z - h| ** p / p, in fp32.

    >>> mean_distance(torch.full((1, 1, 2), 3.0), torch.ones(1, 1, 2), 2.0).item()
    2.0
    """
    return (predictions.float() - targets).abs().pow(exponent).mean() / exponent
