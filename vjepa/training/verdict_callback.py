"""The callback that logs the verdict on a run, and figures to choose checkpoints by."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L

from vjepa.errors import SettingError
from vjepa.training.callbacks import log_interval
from vjepa.training.verdict import Figures, Verdict, verdict

log = logging.getLogger(__name__)


class HealthVerdict(L.Callback):
    """Judges the run at each logged step.

    Args:
        stop_after: Number of consecutive unhealthy verdicts after which the run ends; None for never.
        keep: Number of latest logged steps that a verdict uses, besides the first.
    """

    def __init__(self, *, stop_after: int | None = None, keep: int = 20) -> None:
        if keep < 3:
            raise SettingError(f"keep {keep}: a verdict needs at least three steps. Raise keep to 3 or more.")
        if stop_after is not None and stop_after < 1:
            raise SettingError(f"stop_after {stop_after}: give 1 verdict or more, or null for never.")
        self.stop_after, self.keep = stop_after, keep
        self.history: list[Figures] = []
        self.verdict = Verdict()
        self.unhealthy = 0  # consecutive verdicts

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge the run, and log the verdict if it changed."""
        step = trainer.global_step
        every = log_interval(trainer)
        known = self.history and self.history[-1]["step"] == step  # micro-batches share a step
        if known or not step or (step > 1 and step % every):
            return
        figures = {
            name.removeprefix("train/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/")
        }
        self.history.append({"step": float(step), **figures})
        if len(self.history) > self.keep + 1:
            del self.history[1]  # the first stays, to compare with
        new = verdict(self.history)
        self.unhealthy = 0 if new.judgement == "healthy" else self.unhealthy + 1
        pl_module.log("train/unhealthy", float(self.unhealthy))
        changed = (new.judgement, new.change) != (self.verdict.judgement, self.verdict.change)
        if changed or len(self.history) == 1:
            log.log(logging.WARNING if self.unhealthy else logging.INFO, "health at step %d: %s", step, new)
        self.verdict = new
        if self.stop_after is not None and self.unhealthy >= self.stop_after:
            log.warning(
                "the run ends at step %d: %d consecutive verdicts were not healthy", step, self.unhealthy
            )
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return the history, which a resumed run needs."""
        return {"history": self.history, "unhealthy": self.unhealthy}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history of the interrupted run."""
        self.history, self.unhealthy = state_dict["history"], state_dict["unhealthy"]
        if self.history:
            self.verdict = verdict(self.history)
