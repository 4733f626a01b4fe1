"""Checks that accumulated batches make whole optimiser steps, and no checkpoint within one."""

from __future__ import annotations

import logging
from typing import Any, cast

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import ModelCheckpoint

from vjepa.errors import SettingError

log = logging.getLogger(__name__)


def check_whole_steps(trainer: L.Trainer) -> None:
    """Check that no epoch ends within an optimiser step, and warn if a validation falls within one.

    Raises:
        SettingError: If an epoch does; Lightning would take a smaller step there, of a smaller gradient.
    """
    batches, epoch = trainer.accumulate_grad_batches, trainer.num_training_batches
    only_tries = cast("Any", trainer).fast_dev_run
    if np.isfinite(epoch) and epoch % batches and not only_tries:
        fits = max(count for count in range(1, batches) if epoch % count == 0)
        raise SettingError(
            f"an epoch of {epoch} batches ends within a step of {batches} batches. Lower "
            f"--trainer.accumulate_grad_batches to {fits}, the largest number that fits, or set "
            f"--trainer.limit_train_batches to a multiple of {batches}."
        )
    every = cast("Any", trainer).val_check_batch or np.inf
    chosen = any(getattr(each, "monitor", None) for each in trainer.checkpoint_callbacks)
    if chosen and np.isfinite(every) and every % batches:
        log.warning(
            "validation every %d batches falls within a step of %d: a checkpoint chosen there lacks the gradients "
            "of the step's first batches, so a run does not resume from it bit by bit. Set "
            "--trainer.val_check_interval to a multiple of %d.",
            *(every, batches, batches),
        )


class HeldBack:
    """The checkpoints of a step, held back until a batch ends it.

    Lightning saves no checkpoint at the step in `_last_global_step_saved`, and does not restore that value when it
    resumes. It calls `on_train_batch_end` of checkpoint callbacks before that of the module, which releases them.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        self.step = trainer.global_step
        saving = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
        self.saved = [(each, each._last_global_step_saved) for each in saving]
        for each in saving:
            each._last_global_step_saved = self.step

    def release(self, trainer: L.Trainer) -> None:
        """Allow the checkpoints again, if the batch ended no step."""
        if trainer.global_step == self.step:
            for each, step in self.saved:
                each._last_global_step_saved = step
