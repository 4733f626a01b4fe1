"""Pre-training that goes on from a checkpoint of any format: new clips, new lengths, new sizes."""

from __future__ import annotations

from typing import Literal

from vjepa.checkpoints.load import load_part, open_checkpoint, predictor_class
from vjepa.checkpoints.source import Part
from vjepa.checkpoints.strict import CheckpointError
from vjepa.masks import MaskStrategy
from vjepa.models import ActionPredictor, Predictor, VideoEncoder
from vjepa.objectives import LatentPrediction


def adapted_prediction(
    *,
    checkpoint: str,
    masks: list[MaskStrategy],
    loss_exp: float | Literal["smooth"] = 1.0,
    frame_counts: tuple[int, ...] = (),
) -> LatentPrediction:
    """`LatentPrediction` that starts from the networks of a checkpoint, with their architecture.

    The optimiser starts anew. Clips may be of another length or size than those before: rotary positions are
    computed, sine-cosine tables interpolated.

    Args:
        checkpoint: A file or folder `vjepa.load_encoder` reads, with a predictor. Of two encoders each is taken;
            of one, both start as it.
        masks: Mask strategies, at most as many as the predictor has mask tokens.
        loss_exp: As in `LatentPrediction`.
        frame_counts: As in `LatentPrediction`.

    Raises:
        CheckpointError: If the checkpoint has no encoder or predictor, or that of an action-conditioned model.
    """
    source = open_checkpoint(checkpoint)
    if predictor_class(source, {}) is ActionPredictor:
        raise CheckpointError(
            f"{checkpoint}: its predictor is conditioned on actions. Give a checkpoint of pre-training."
        )
    own: Part = "context_encoder" if "context_encoder" in source.parts else "encoder"
    average: Part = "encoder" if "encoder" in source.parts else "context_encoder"
    predictor = load_part(source, "predictor", Predictor, {})
    objective = LatentPrediction(
        encoder=load_part(source, own, VideoEncoder, {}),
        predictor=lambda width: predictor,
        masks=masks,
        loss_exp=loss_exp,
        frame_counts=frame_counts,
    )
    held = load_part(source, average, VideoEncoder, {})
    objective.target_encoder.load_state_dict(held.state_dict())
    return objective.float()  # weights come in the type they were stored in
