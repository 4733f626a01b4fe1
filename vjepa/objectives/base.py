"""The interface of objectives: the networks of a method and its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.masks import MaskStrategy
from vjepa.models import ActionPredictor, Predictor, VideoEncoder
from vjepa.optim import EmaPair
from vjepa.types import ClipBatch, LossOutput


class Objective(nn.Module, ABC):
    """Owns the networks of a method and turns a batch into a loss.

    A subclass sets `target_encoder`, and of the other attributes those that its method has. The optimiser trains
    every child module that has trainable weights; a frozen encoder is one after `requires_grad_(False)`.

    Attributes:
        target_encoder: The encoder to use afterwards: a moving average, the trained encoder itself, or a frozen one.
        context_encoder: The encoder that is trained, or None.
        predictor: The network that predicts the targets, or None. Exported if it is a `Predictor` or
            `ActionPredictor`.
        masks: Mask strategies, one per term of the loss; empty where nothing is hidden.
    """

    target_encoder: VideoEncoder
    context_encoder: VideoEncoder | None
    predictor: nn.Module | None
    masks: list[MaskStrategy]

    def __init__(self) -> None:
        super().__init__()
        self.context_encoder = self.predictor = None
        self.masks = []

    @abstractmethod
    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """Return the loss of a batch.

        Args:
            batch: Clips, `video` (B, C, T, H, W); what else belongs to them by `batch.extra(name)`.
            generator: Source of the masks and of every other random choice, on the CPU.

        Returns:
            The loss with gradient, and optionally scalars to log and tokens to measure the health of the run from.
        """

    def ema_pairs(self) -> list[EmaPair]:
        """Return the pairs (average, source) to update after each optimiser step; none by default."""
        return []

    def set_step(self, step: int, total_steps: int) -> None:  # noqa: B027 - most objectives have no schedule
        """Set loss weights that follow a schedule. Called before each training batch with the steps done."""

    def train(self, mode: bool = True) -> Objective:
        """Set the training mode, except of networks without a trainable weight: those stay in eval mode."""
        super().train(mode)
        trained = set(self.trained().values())
        for network in self.children():
            if network not in trained:
                network.eval()
        return self

    def trained(self) -> dict[str, nn.Module]:
        """Return the child modules that have trainable weights, by name, in the order they were set."""
        if own := [name for name, _ in self.named_parameters(recurse=False)]:
            raise SettingError(
                f"{type(self).__name__} has the parameters {', '.join(own)} outside its child modules, and only those "
                "are trained. Put them in a module, such as nn.ParameterDict."
            )
        return {
            name: network
            for name, network in self.named_children()
            if any(weight.requires_grad for weight in network.parameters())
        }

    def exported(self) -> dict[str, nn.Module]:
        """Return the networks that checkpoints describe and exports hold, by the name of their file."""
        networks: dict[str, nn.Module] = {"encoder": self.target_encoder}
        if self.context_encoder is not None:
            networks["context_encoder"] = self.context_encoder
        if isinstance(self.predictor, Predictor | ActionPredictor):
            networks["predictor"] = self.predictor
        return networks


def layer_normed(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Return tokens in fp32, layer-normed without weights (eps 1e-5)."""
    return F.layer_norm(tokens.float(), tokens.shape[-1:])


def mean_distance(
    predictions: Float[Tensor, "b n d"], targets: Float[Tensor, "b n d"], exponent: float
) -> Float[Tensor, ""]:
    """Return the mean of |z - h| ** p / p, in fp32.

    >>> mean_distance(torch.full((1, 1, 2), 3.0), torch.ones(1, 1, 2), 2.0).item()
    2.0
    """
    return (predictions.float() - targets).abs().pow(exponent).mean() / exponent
