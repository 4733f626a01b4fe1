"""A run that is told to end saves its state first."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any, cast

import lightning as L
from lightning.fabric.plugins.environments import SLURMEnvironment

from vjepa.errors import StoppedBySignal
from vjepa.training.callbacks import keeps_files

log = logging.getLogger(__name__)

ENDING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class StopOnSignal(L.Callback):
    """On Ctrl-C, SIGTERM or SIGUSR1 the step is finished, a checkpoint saved, and the run ended with 128 + signal.

    A second signal ends the run at once, without a checkpoint. A SLURM job whose environment says so (Lightning's
    default) is then put back in the queue, if it was the requeue signal; Lightning itself would save in mid-step.
    Several ranks ask one another every `log_every_n_steps` steps.

    Args:
        name: File name of the checkpoint, in the folder of the run's checkpoints.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.received: int | None = None
        self.requeues: signal.Signals | None = None  # the signal after which the job is put back in the queue
        self.last_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over; the trainer gives them back when it ends."""
        self.received, self.last_step = None, trainer.global_step
        if threading.current_thread() is not threading.main_thread():
            return  # signals go to the main thread alone
        environment = cast("Any", trainer)._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self.requeues = environment.requeue_signal
        for number in {*ENDING, self.requeues or ENDING[0]}:
            signal.signal(number, self._receive)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the run after a whole step.

        Raises:
            StoppedBySignal: If a signal has come, here or on another rank.
        """
        step = trainer.global_step
        if step == self.last_step:
            return  # between micro-batches: a checkpoint would lose their gradients
        self.last_step = step
        if not self._asked(trainer):
            return
        told = "before a checkpoint was wanted"
        if keeps_files(trainer):
            path = Path(str(trainer.log_dir)) / "checkpoints" / self.name
            trainer.save_checkpoint(path)
            told = f"step {step} is saved; go on with --ckpt_path {path}"
            if trainer.is_global_zero and self.received is not None and self.received == self.requeues:
                _requeue()
        raise StoppedBySignal(self.received or signal.SIGTERM, told)

    def _asked(self, trainer: L.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.received is not None
        every = cast("Any", trainer).log_every_n_steps  # set by the trainer, not declared by it
        if trainer.global_step % every:
            return False
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise StoppedBySignal(number, "at once; the last checkpoint stays as it was")
        self.received = number
        log.warning(
            "%s: the step is finished and saved; a second one ends at once", signal.Signals(number).name
        )


def _requeue() -> None:
    """Put this SLURM job back in the queue; SLURM then ends what runs of it."""
    job = str(SLURMEnvironment.job_id())
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.error("SLURM job %s is not requeued: %s. Submit it again.", job, error)
    else:
        log.warning("SLURM job %s is back in the queue", job)
