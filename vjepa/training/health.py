"""How a run is, without labels. The loss says little: it also falls when the features collapse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.metrics import cosine_to_mean, effective_rank, feature_std
from vjepa.objectives import Objective
from vjepa.optim import ema_distance, gathered
from vjepa.types import ClipBatch, LossOutput, MaskPair, TokenGrid

PIXEL_STEP = 4  # of the clips, every fourth row and column is looked at
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
    pairs = objective.ema_pairs()
    return {
        "grad_norm_encoder": _grad_norm(objective.context_encoder),
        "grad_norm_predictor": _grad_norm(objective.predictor),
        **({"ema_distance": ema_distance(pairs)} if pairs else {}),
    }


@torch.no_grad()
def input_health(batch: ClipBatch) -> dict[str, Tensor]:
    """`video_std`: mean over pixels of their spread over clips and times, 0 where all frames are one picture."""
    pixels = batch.video[..., ::PIXEL_STEP, ::PIXEL_STEP].float()
    return {"video_std": rearrange(pixels, "b c t h w -> (b t) (c h w)").std(dim=0, correction=0).mean()}


@torch.no_grad()
def mask_geometry(masks: Sequence[MaskPair], grid: TokenGrid) -> dict[str, Tensor]:
    """Where the masks lie, as means over the mask strategies.

    Returns:
        `context_tokens`, `target_tokens`: a clip; `context_q1` to `context_q4`: share of the context in each quarter
        of the clip's length, 0.25 each where time is treated evenly; `target_seen`: share of the targets
        that are in the context too, which must be 0.
    """
    device = masks[0].context.device
    seen, counts = [], []
    for pair in masks:
        time = pair.context // (grid.h * grid.w)
        counts.append(torch.bincount((time * 4 // grid.t).flatten(), minlength=4) / pair.context.numel())
        is_context = torch.zeros(len(pair.context), len(grid), dtype=torch.bool, device=device)
        is_context.scatter_(1, pair.context, True)
        seen.append(is_context.gather(1, pair.target).float().mean())
    return {
        "context_tokens": torch.tensor(sum(p.context.shape[1] for p in masks) / len(masks), device=device),
        "target_tokens": torch.tensor(sum(p.target.shape[1] for p in masks) / len(masks), device=device),
        **{f"context_q{i + 1}": share for i, share in enumerate(torch.stack(counts).mean(0))},
        "target_seen": torch.stack(seen).mean(),
    }


def _part(tokens: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """At most MAX_TOKENS rows, spread evenly over all: the same rows of targets and predictions."""
    return tokens[:: max(1, -(-len(tokens) // MAX_TOKENS))].float()


def _grad_norm(network: nn.Module) -> Float[Tensor, ""]:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return gathered(torch.nn.utils.get_total_norm(gradients))
