"""Saving the state of a run whose data-loader process was killed, for example because memory ran out."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning as L

from vjepa.data.loading.workers import LostWorkerError
from vjepa.training.callbacks import save_in_run

log = logging.getLogger(__name__)


class StopOnLostWorker(L.Callback):
    """When a data-loader process dies, finishes the step, saves a checkpoint and ends the run with an error.

    torch raises its error wherever the main process happens to be, even inside an optimiser step, so this callback
    defers torch's handler until the step is complete. With several ranks nothing is saved, because the others cannot
    take part.

    Args:
        name: File name of the checkpoint, in the folder of the run's checkpoints.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.handler: Callable[[int, FrameType | None], Any] | None = None  # torch's
        self.lost = ""  # torch's message
        self.last_step = 0
        self.between_steps = False  # then no gradients of micro-batches exist

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the state at the start of a run."""
        self.lost, self.between_steps, self.last_step = "", False, trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Replace torch's handler, which exists from the first worker on."""
        self.between_steps = False
        if (
            self.handler is None
            and hasattr(signal, "SIGCHLD")
            and threading.current_thread() is threading.main_thread()
        ):
            found = signal.getsignal(signal.SIGCHLD)
            if callable(found):
                self.handler = found
                signal.signal(signal.SIGCHLD, self._receive)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the run after a complete step.

        Raises:
            LostWorkerError: If a worker died.
        """
        self.between_steps = trainer.global_step != self.last_step
        self.last_step = trainer.global_step
        if self.lost and self.between_steps:
            raise LostWorkerError(self.lost)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore torch's handler."""
        self._restore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Restore torch's handler, and save the state if a worker ended the run between two steps."""
        self._restore()
        if not isinstance(exception, LostWorkerError) or not self.between_steps or trainer.world_size > 1:
            return
        if path := save_in_run(trainer, self.name):
            log.error("step %d is saved; resume with --ckpt_path %s", trainer.global_step, path)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        assert self.handler is not None
        try:
            self.handler(number, frame)
        except RuntimeError as error:
            self.lost = str(error)

    def _restore(self) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGCHLD, self.handler)
            self.handler = None
