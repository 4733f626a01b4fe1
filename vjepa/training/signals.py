"""Saving the state of a run before a signal ends it."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
from types import FrameType
from typing import Any, cast

import lightning as L
from lightning.fabric.plugins.environments import SLURMEnvironment

from vjepa.errors import StoppedBySignal
from vjepa.training.callbacks import log_interval, save_in_run

log = logging.getLogger(__name__)

ENDING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class StopOnSignal(L.Callback):
    """On Ctrl-C, SIGTERM or SIGUSR1, finishes the step, saves a checkpoint and ends the run with 128 + signal.

    A second signal ends the run at once, without a checkpoint. After the requeue signal of SLURM the job is requeued
    if its environment allows that (Lightning's default); Lightning's own handler would save in the middle of a step.
    Several ranks exchange signals every `log_every_n_steps` steps.

    Args:
        name: File name of the checkpoint, in the folder of the run's checkpoints.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.received: int | None = None
        self.requeues: signal.Signals | None = None  # the signal after which the job is requeued
        self.last_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Install the handlers; the trainer restores the previous ones when it ends."""
        self.received, self.last_step = None, trainer.global_step
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread receives signals
        environment = cast("Any", trainer)._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self.requeues = environment.requeue_signal
        for number in {*ENDING, self.requeues or ENDING[0]}:
            signal.signal(number, self._receive)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the run after a complete step.

        Raises:
            StoppedBySignal: If this or another rank received a signal.
        """
        step = trainer.global_step
        if step == self.last_step:
            return  # between micro-batches: a checkpoint would lose their gradients
        self.last_step = step
        if not self._asked(trainer):
            return
        message = "this run keeps no checkpoints"
        if path := save_in_run(trainer, self.name):
            message = f"step {step} is saved; resume with --ckpt_path {path}"
            if trainer.is_global_zero and self.received is not None and self.received == self.requeues:
                _requeue()
        raise StoppedBySignal(self.received or signal.SIGTERM, message)

    def _asked(self, trainer: L.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.received is not None
        if trainer.global_step % log_interval(trainer):
            return False
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise StoppedBySignal(number, "at once; the last checkpoint is unchanged")
        self.received = number
        log.warning(
            "%s: finishing and saving the step; a second signal ends the run at once",
            signal.Signals(number).name,
        )


def _requeue() -> None:
    """Requeue this SLURM job; SLURM then ends its processes."""
    job = str(SLURMEnvironment.job_id())
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.error("SLURM job %s could not be requeued: %s. Submit it again.", job, error)
    else:
        log.warning("SLURM job %s is requeued", job)
