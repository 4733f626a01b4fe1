"""Checks that accumulated batches make whole optimiser steps."""

from __future__ import annotations

import logging
from typing import Any, cast

import lightning as L
import numpy as np

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
