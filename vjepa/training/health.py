"""Health of a run without labels. The loss says little: it also falls when the features collapse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vjepa.metrics import cosine_to_mean, effective_rank, feature_std
from vjepa.objectives import Objective
from vjepa.optim import ema_distance, gathered
from vjepa.types import ClipBatch, LossOutput, MaskPair, TokenGrid

PIXEL_STEP = 4  # every fourth row and column of the clips is measured
MAX_TOKENS = 2048  # tokens for the spectra: enough for a rank of some hundreds


@torch.no_grad()
def feature_health(output: LossOutput) -> dict[str, Tensor]:
    """Measure a batch's targets and predictions; what the objective does not return is not measured.

    Returns:
        `target_std`, `prediction_std`: mean channel spread over tokens (targets are layer-normed: 1 at most).
        `target_rank`, `prediction_rank`: effective rank.
        `target_cosine`, `prediction_cosine`: mean cosine to the mean token, 1 when collapsed.
        `loss_over_mean`: L1 error of the predictions over that of always predicting the batch's mean token, 1 when
        nothing is learned.
    """
    given = {"target": output.targets, "prediction": output.predictions}
    tokens = {name: _part(tensor) for name, tensor in given.items() if tensor is not None}
    measures = {"std": feature_std, "rank": effective_rank, "cosine": cosine_to_mean}
    figures = {f"{name}_{m}": of(part) for m, of in measures.items() for name, part in tokens.items()}
    if len(tokens) == len(given):
        targets, predictions = tokens.values()
        trivial = (targets - targets.mean(dim=0)).abs().mean()
        figures["loss_over_mean"] = (predictions - targets).abs().mean() / trivial.clamp(min=1e-12)
    return figures


def not_measured(output: LossOutput) -> str:
    """Say what the objective does not return and the figures therefore lack; "" if nothing."""
    returned = {"predictions": output.predictions, "targets": output.targets, "masks": output.masks or None}
    absent = [name for name, value in returned.items() if value is None]
    return f"no {', '.join(absent)} to measure; the figures made of them are not logged" if absent else ""


@torch.no_grad()
def network_health(objective: Objective) -> dict[str, Tensor]:
    """Measure the gradient norms of the trained networks, and the distance of the target from the context encoder.

    Call it between backward and the optimiser's step.
    """
    pairs = objective.ema_pairs()
    norms = {
        f"grad_norm_{name.removeprefix('context_')}": grad_norm(network.parameters())
        for name, network in objective.trained().items()
    }
    return norms | ({"ema_distance": ema_distance(pairs)} if pairs else {})


@torch.no_grad()
def input_health(batch: ClipBatch) -> dict[str, Tensor]:
    """Return `video_std`, the mean over pixels of their spread over clips and times; 0 if all frames are equal."""
    pixels = batch.video[..., ::PIXEL_STEP, ::PIXEL_STEP].float()
    return {"video_std": rearrange(pixels, "b c t h w -> (b t) (c h w)").std(dim=0, correction=0).mean()}


@torch.no_grad()
def mask_geometry(masks: Sequence[MaskPair], grid: TokenGrid | None) -> dict[str, Tensor]:
    """Measure where the masks lie, as means over the mask strategies; nothing without masks.

    Returns:
        `context_tokens`, `target_tokens`: number per clip.
        `context_q1` to `context_q4`: share of the context in each quarter of the clip's length, 0.25 each if time is
        treated evenly.
        `target_seen`: share of the targets that are in the context too, which must be 0.
    """
    if not masks or grid is None:
        return {}
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
    """Return at most MAX_TOKENS rows, spread evenly: the same rows of targets and predictions."""
    return tokens[:: max(1, -(-len(tokens) // MAX_TOKENS))].float()


def grad_norm(weights: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Return the norm of all gradients; all ranks must call it together."""
    return gathered(torch.nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None]))
