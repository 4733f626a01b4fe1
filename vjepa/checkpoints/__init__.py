"""Checkpoints: any format read and written, strictly."""

from vjepa.checkpoints.load import load_encoder, load_predictor
from vjepa.checkpoints.save import save_huggingface, save_meta
from vjepa.checkpoints.strict import CheckpointError
from vjepa.models.files import save_folder

__all__ = [
    "CheckpointError",
    "load_encoder",
    "load_predictor",
    "save_folder",
    "save_huggingface",
    "save_meta",
]
