"""Objectives: what is learned, from which networks and masks."""

from vjepa.objectives.action_rollout import action_losses, frame_features, rolled_out, teacher_forced
from vjepa.objectives.base import Objective
from vjepa.objectives.latent_prediction import LatentPrediction

__all__ = [
    "LatentPrediction",
    "Objective",
    "action_losses",
    "frame_features",
    "rolled_out",
    "teacher_forced",
]
