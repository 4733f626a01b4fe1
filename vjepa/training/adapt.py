"""An objective that continues pre-training from the networks of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vjepa.checkpoints.load import load_network, main_encoder, open_checkpoint, predictor_class
from vjepa.checkpoints.strict import CheckpointError
from vjepa.masks import MaskStrategy
from vjepa.models import ActionPredictor, Predictor, VideoEncoder
from vjepa.objectives import LatentPrediction


def load_objective(
    path: str | Path,
    *,
    masks: list[MaskStrategy],
    loss_exp: float | Literal["smooth"] = 1.0,
    frame_counts: tuple[int, ...] = (),
) -> LatentPrediction:
    """Return latent prediction with the networks of a checkpoint, in fp32 whatever their stored precision.

    The context encoder starts from the trained one, the target encoder from its moving average; if the checkpoint has
    one encoder, both start from it. Clips may have other sizes than in its training: additive positions are
    interpolated, rotary positions extrapolate.

    `path` is that of `vjepa.load_encoder`, and must hold a predictor; the other arguments are those of
    `LatentPrediction`.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        CheckpointError: If it has no predictor of hidden tokens.
    """
    source = open_checkpoint(path)
    if "predictor" in source.networks and predictor_class(source, {}) is ActionPredictor:
        raise CheckpointError(
            f"{path}: its predictor is conditioned on actions. Give a checkpoint of pre-training."
        )
    trained = "context_encoder" if "context_encoder" in source.networks else main_encoder(source)
    context = load_network(source, trained, VideoEncoder, {}).float()
    target = load_network(source, main_encoder(source), VideoEncoder, {}).float()
    predictor = load_network(source, "predictor", Predictor, {}).float()
    objective = LatentPrediction(
        encoder=context,
        predictor=lambda width: predictor,
        masks=masks,
        loss_exp=loss_exp,
        frame_counts=frame_counts,
    )
    objective.target_encoder.load_state_dict(target.state_dict())
    return objective
