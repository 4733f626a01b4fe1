"""The guard against losses and gradients that are NaN or infinite: it saves the batch and skips the step."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from vjepa.checkpoints.opening import newest_whole
from vjepa.errors import SettingError, VjepaError
from vjepa.training.callbacks import keeps_files, run_folder
from vjepa.training.health import grad_norm
from vjepa.types import ClipBatch

log = logging.getLogger(__name__)

NAMED = 20  # maximum number of a batch's files that a message lists


class NonFiniteError(VjepaError, ValueError):
    """A loss or gradient that is NaN or infinite and stops the run."""


class NonFiniteGuard(L.Callback):
    """Checks the loss of each batch, and the gradients before each step.

    If one is NaN or infinite, the batch's files are listed, the batch is written to `bad_batches` in the run's folder
    and the optimiser step is skipped; the moving average, the schedules and the data continue. With precision
    16-mixed nothing is listed or written: the gradient scaler skips such steps itself.

    Args:
        action: "stop" ends the run; "skip" continues with the next batch; "rollback" also restores weights and
            optimiser from the newest intact checkpoint of the run, if there is one.
        most: Maximum number of bad batches per run to skip or roll back; one more stops it.
    """

    def __init__(self, *, action: Literal["stop", "skip", "rollback"] = "stop", most: int = 10) -> None:
        self.action, self.most = action, most
        self.count = 0
        self.batch: ClipBatch | None = None  # the current one
        self.bad: ClipBatch | None = None  # the first of the step's micro-batches with a bad loss

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the action is possible.

        Raises:
            SettingError: If the action is "rollback" and the networks are sharded.
        """
        if self.action == "rollback" and isinstance(trainer.strategy, ModelParallelStrategy):
            raise SettingError(
                "NonFiniteGuard: action 'rollback' is not for strategy fsdp2. Give 'skip' or 'stop'."
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Store the batch."""
        self.batch = batch

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Store the first batch of the step whose loss is bad."""
        if self.bad is None and not bool(loss.detach().isfinite()):
            self.bad = self.batch

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Prevent a bad step.

        Raises:
            NonFiniteError: If the run should stop.
        """
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        bad, self.bad = self.bad, None
        norm = grad_norm(weights)  # on all ranks, whichever rank's loss was bad
        if bad is None and bool(norm.isfinite()):
            return
        if trainer.precision == "16-mixed":
            return  # the gradient scaler skips steps with infinite gradients itself
        self.count += 1
        what = "gradient" if bad is None else "loss"
        batch = bad or self.batch
        assert batch is not None
        message = f"step {trainer.global_step}: the {what} is not finite. The batch: {_files(trainer, batch)}"
        if saved := self._save(trainer, batch):
            message = f"{message}; saved in {saved}"
        if self.action == "stop" or self.count > self.most:
            raise NonFiniteError(
                f"{message}. Lower model.lr, repair the files, or set the action of vjepa.training.NonFiniteGuard to "
                f"'skip' or 'rollback' (most: {self.most})."
            )
        optimizer.zero_grad(set_to_none=True)  # then AdamW changes neither weights nor its own two averages
        if self.action == "rollback":
            message = f"{message}; {_roll_back(trainer, pl_module, optimizer)}"
        log.warning("%s; the step is skipped (%d of %d)", message, self.count, self.most)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of bad batches."""
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of bad batches."""
        self.count = state_dict["count"]

    def _save(self, trainer: L.Trainer, batch: ClipBatch) -> Path | None:
        folder = run_folder(trainer)
        if not keeps_files(trainer) or folder is None:
            return None
        path = folder / "bad_batches" / f"step{trainer.global_step}_rank{trainer.global_rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        names = ("video", "label", "index")
        torch.save({name: getattr(batch, name).cpu() for name in names} | {"part": batch.part}, path)
        return path


def _files(trainer: L.Trainer, batch: ClipBatch) -> str:
    """Return the batch's files, or its rows without a VideoDataModule."""
    rows = batch.index.tolist()
    data: Any = getattr(trainer, "datamodule", None)
    names = data.paths_of(batch) if hasattr(data, "paths_of") else [f"row {row}" for row in rows]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _roll_back(trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer) -> str:
    """Restore weights and optimiser; return a phrase that names the checkpoint."""
    folder = run_folder(trainer)
    found = newest_whole(folder / "checkpoints") if folder is not None else None
    if found is None:
        return "there is no checkpoint yet to restore"
    held = torch.load(found, map_location=pl_module.device, weights_only=True)
    pl_module.load_state_dict(held["state_dict"])
    optimizer.load_state_dict(held["optimizer_states"][0])
    return f"weights and optimiser are restored from step {held['global_step']} ({found})"
