"""How a run is, without labels. The loss says little: it also falls when the features collapse."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.metrics import cosine_to_mean, effective_rank, feature_std
from vjepa.objectives import Objective
from vjepa.optim import ema_distance, whole
from vjepa.types import LossOutput

MAX_TOKENS = 2048  # tokens that the spectra are taken from: enough for a rank of some hundreds


@torch.no_grad()
def feature_health(output: LossOutput) -> dict[str, Tensor]:
    """Scalars of a batch's targets and predictions.

    Returns:
        `target_std`, `prediction_std`: mean channel spread over tokens (targets are layer-normed: 1 at most);
        `target_rank`, `prediction_rank`: effective rank; `target_cosine`, `prediction_cosine`: mean cosine to
        the mean token, 1 when collapsed; `loss_over_mean`: L1 error of the predictions over that of always
        predicting the batch's mean token, 1 when nothing is learned.
    """
    targets, predictions = _part(output.targets), _part(output.predictions)
    trivial = (targets - targets.mean(dim=0)).abs().mean()
    return {
        "target_std": feature_std(targets),
        "prediction_std": feature_std(predictions),
        "target_rank": effective_rank(targets),
        "prediction_rank": effective_rank(predictions),
        "target_cosine": cosine_to_mean(targets),
        "prediction_cosine": cosine_to_mean(predictions),
        "loss_over_mean": (predictions - targets).abs().mean() / trivial.clamp(min=1e-12),
    }


@torch.no_grad()
def network_health(objective: Objective) -> dict[str, Tensor]:
    """Gradient norms of the trained networks, and how far the target encoder is from the context encoder.

    Call it between backward and the optimiser's step.
    """
    return {
        "grad_norm_encoder": _grad_norm(objective.context_encoder),
        "grad_norm_predictor": _grad_norm(objective.predictor),
        "ema_distance": ema_distance(objective.ema_pairs()),
    }


def _part(tokens: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """At most MAX_TOKENS rows, spread evenly over all: the same rows of targets and predictions."""
    return tokens[:: max(1, -(-len(tokens) // MAX_TOKENS))].float()


def _grad_norm(network: nn.Module) -> Float[Tensor, ""]:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return whole(torch.nn.utils.get_total_norm(gradients))
