"""Checkpoints: read and written strictly."""

from vjepa.checkpoints.native import (
    CheckpointError,
    load_encoder,
    load_predictor,
    read_config,
    save_folder,
)

__all__ = ["CheckpointError", "load_encoder", "load_predictor", "read_config", "save_folder"]
