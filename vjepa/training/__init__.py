"""Pre-training: the module, its health, and what happens around the loop."""

from vjepa.training.callbacks import (
    AtomicCheckpointIO,
    ExportEncoder,
    LastCheckpoint,
    ProgressLines,
    keeps_files,
    run_folder,
)
from vjepa.training.module import PretrainModule

__all__ = [
    "AtomicCheckpointIO",
    "ExportEncoder",
    "LastCheckpoint",
    "PretrainModule",
    "ProgressLines",
    "keeps_files",
    "run_folder",
]
