"""Objectives: what is learned, from which networks and masks."""

from vjepa.objectives.base import Objective
from vjepa.objectives.latent_prediction import LatentPrediction

__all__ = ["LatentPrediction", "Objective"]
