"""A process that reads clips may be killed, e.g. by a machine that is short of memory: the run saves and ends."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L

from vjepa.data.loading.loader import LostWorkerError
from vjepa.training.callbacks import keeps_files

log = logging.getLogger(__name__)


class StopOnLostWorker(L.Callback):
    """When a data-loader process dies, the step is finished, a checkpoint saved, and the run ended with an error.

    torch raises its own error wherever the main process happens to be, even inside of an optimiser's step, so its
    handler is held back until the step is whole. With several ranks nothing is saved: the others cannot join in.

    Args:
        name: File name of the checkpoint, in the folder of the run's checkpoints.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.handler: Callable[[int, FrameType | None], Any] | None = None  # torch's
        self.lost = ""  # what torch said
        self.last_step = 0
        self.whole = False  # between two steps, without gradients of micro-batches

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a run."""
        self.lost, self.whole, self.last_step = "", False, trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hold torch's handler back, once there is one: it comes with the first worker."""
        self.whole = False
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
        """End the run after a whole step.

        Raises:
            LostWorkerError: If a worker is lost.
        """
        self.whole = trainer.global_step != self.last_step
        self.last_step = trainer.global_step
        if self.lost and self.whole:
            raise LostWorkerError(self.lost)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the handler back."""
        self._give_back()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the handler back, and save if it was a worker that ended the run between two steps."""
        self._give_back()
        if not isinstance(exception, LostWorkerError) or not self.whole or trainer.world_size > 1:
            return
        if keeps_files(trainer):
            path = Path(str(trainer.log_dir)) / "checkpoints" / self.name
            trainer.save_checkpoint(path)
            log.error("step %d is saved; go on with --ckpt_path %s", trainer.global_step, path)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        assert self.handler is not None
        try:
            self.handler(number, frame)
        except RuntimeError as error:
            self.lost = str(error)

    def _give_back(self) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGCHLD, self.handler)
            self.handler = None
