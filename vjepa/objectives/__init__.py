"""Objectives: the networks of each method and its loss."""

from vjepa.objectives.action_rollout import action_losses, frame_features, rolled_out, teacher_forced
from vjepa.objectives.base import Objective
from vjepa.objectives.dense_prediction import DensePrediction
from vjepa.objectives.latent_prediction import LatentPrediction
from vjepa.objectives.masked import MaskedObjective
from vjepa.objectives.pixel_prediction import PixelPrediction
from vjepa.objectives.regularized_prediction import RegularizedPrediction
from vjepa.objectives.regularizers import Penalty, SigReg, VarianceCovariance

__all__ = [
    "DensePrediction",
    "LatentPrediction",
    "MaskedObjective",
    "Objective",
    "Penalty",
    "PixelPrediction",
    "RegularizedPrediction",
    "SigReg",
    "VarianceCovariance",
    "action_losses",
    "frame_features",
    "rolled_out",
    "teacher_forced",
]
