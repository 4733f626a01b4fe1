"""Pre-training: the training loop, the health of a run, and callbacks."""

from vjepa.training.adapt import load_objective
from vjepa.training.callbacks import (
    AtomicCheckpointIO,
    ExportEncoder,
    LastCheckpoint,
    MonitoredFigures,
    keeps_files,
    run_folder,
)
from vjepa.training.module import PretrainModule
from vjepa.training.nonfinite import NonFiniteError, NonFiniteGuard
from vjepa.training.progress import ProgressLines
from vjepa.training.sharding import gathered_network
from vjepa.training.signals import StopOnSignal
from vjepa.training.verdict import Verdict, verdict
from vjepa.training.verdict_callback import HealthVerdict
from vjepa.training.workers import StopOnLostWorker

__all__ = [
    "AtomicCheckpointIO",
    "ExportEncoder",
    "HealthVerdict",
    "LastCheckpoint",
    "MonitoredFigures",
    "NonFiniteError",
    "NonFiniteGuard",
    "PretrainModule",
    "ProgressLines",
    "StopOnLostWorker",
    "StopOnSignal",
    "Verdict",
    "gathered_network",
    "keeps_files",
    "load_objective",
    "run_folder",
    "verdict",
]
