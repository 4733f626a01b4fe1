"""Encoders and predictors."""

from vjepa.models.action_predictor import ActionPredictor
from vjepa.models.classifier import EncoderClassifier
from vjepa.models.encoder import VideoEncoder
from vjepa.models.predictor import Predictor
from vjepa.models.presets import SIZES, create_model, list_models
from vjepa.models.tubelet import TubeletEmbed

__all__ = [
    "SIZES",
    "ActionPredictor",
    "EncoderClassifier",
    "Predictor",
    "TubeletEmbed",
    "VideoEncoder",
    "create_model",
    "list_models",
]
