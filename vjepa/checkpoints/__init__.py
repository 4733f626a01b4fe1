"""Checkpoints: read and written strictly."""

from vjepa.checkpoints.native import (
    CheckpointError,
    load_encoder,
    load_predictor,
    read_config,
)
from vjepa.models.files import save_folder

__all__ = ["CheckpointError", "load_encoder", "load_predictor", "read_config", "save_folder"]
