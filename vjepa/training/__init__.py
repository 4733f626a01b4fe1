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
from vjepa.training.nonfinite import NonFiniteError, NonFiniteGuard
from vjepa.training.sharding import unsharded
from vjepa.training.signals import StopOnSignal
from vjepa.training.verdict import Verdict, verdict
from vjepa.training.verdict_callback import HealthVerdict
from vjepa.training.workers import StopOnLostWorker

__all__ = [
    "AtomicCheckpointIO",
    "ExportEncoder",
    "HealthVerdict",
    "LastCheckpoint",
    "NonFiniteError",
    "NonFiniteGuard",
    "PretrainModule",
    "ProgressLines",
    "StopOnLostWorker",
    "StopOnSignal",
    "Verdict",
    "keeps_files",
    "run_folder",
    "unsharded",
    "verdict",
]
