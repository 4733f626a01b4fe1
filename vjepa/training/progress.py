"""The line of progress of a fit: step of steps, rate, time left, loss and verdict."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, cast

import lightning as L

from vjepa.training.verdict_callback import HealthVerdict

log = logging.getLogger(__name__)

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


class ProgressLines(L.Callback):
    """Shows the progress of a fit at intervals, as one line.

    Args:
        every_seconds: Minimum time between two lines.
        show: Shows a line (default: log it); called with an empty line when training ends.
    """

    def __init__(self, *, every_seconds: float = 15.0, show: Callable[[str], None] | None = None) -> None:
        self.every_seconds, self.show = every_seconds, show
        self.last = float("-inf")
        self.first: tuple[int, float] | None = None  # the first step of this run, and when it ended

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the step and its latest figures."""
        now, step = time.monotonic(), trainer.global_step
        self.first = self.first or (step, now)
        if now - self.last < self.every_seconds or not trainer.is_global_zero:
            return
        self.last = now
        took, done = now - self.first[1], step - self.first[0]
        known = trainer.logged_metrics | trainer.callback_metrics
        callbacks = cast("Any", trainer).callbacks
        judges = [each for each in callbacks if isinstance(each, HealthVerdict) and each.history]
        line = progress_line(
            step,
            int(trainer.estimated_stepping_batches),
            seconds_per_step=took / done if done else None,
            loss=float(known["train/loss"]) if "train/loss" in known else None,
            judgement=judges[0].verdict.judgement if judges else None,
        )
        (self.show or log.info)(line)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove a line that stays in place."""
        if self.show is not None:
            self.show("")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Remove a line that stays in place."""
        if self.show is not None:
            self.show("")


def progress_line(
    step: int, steps: int, *, seconds_per_step: float | None, loss: float | None, judgement: str | None
) -> str:
    """Return the line of one step.

    >>> progress_line(240, 1500, seconds_per_step=0.1, loss=0.412, judgement="healthy")
    'step 240 of 1500  10 steps/s  2 min 6 s left  loss 0.412  healthy'
    >>> progress_line(2, 9, seconds_per_step=None, loss=None, judgement=None)
    'step 2 of 9'
    """
    parts = [f"step {step} of {steps}"]
    if seconds_per_step is not None:
        slow = seconds_per_step > 1
        parts.append(f"{seconds_per_step:.3g} s/step" if slow else f"{1 / seconds_per_step:.3g} steps/s")
        parts.append(f"{duration(seconds_per_step * (steps - step))} left")
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    return "  ".join([*parts, *([judgement] if judgement else [])])


def duration(seconds: float | int) -> str:
    """Return a time in its two largest units.

    >>> duration(4), duration(100_000)
    ('4 s', '1 d 3 h')
    """
    parts, rest = [], round(seconds)
    for unit, size in UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
