"""What happens around the loop: whole checkpoints, the folder to use, lines of progress."""

from __future__ import annotations

import difflib
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import torch
from lightning.fabric.plugins.io import CheckpointIO
from torch import Tensor

from vjepa.checkpoints import save_folder
from vjepa.checkpoints.opening import check_whole
from vjepa.checkpoints.strict import CheckpointError
from vjepa.errors import SettingError
from vjepa.objectives import Objective
from vjepa.training.sharding import complete

log = logging.getLogger(__name__)


def keeps_files(trainer: L.Trainer) -> bool:
    """Whether a run leaves files: not one that only tries a batch (`fast_dev_run`)."""
    only_tries = cast("Any", trainer).fast_dev_run  # set by the trainer, not declared by it
    return run_folder(trainer) is not None and not only_tries


def run_folder(trainer: L.Trainer) -> Path | None:
    """Where this process writes what the run leaves; of use on the first rank, and to it alone.

    `trainer.log_dir` is the same folder, but all ranks must ask for it together.
    """
    first = trainer.loggers[0] if trainer.loggers else None
    folder = first.log_dir or first.save_dir if first else trainer.default_root_dir
    return None if folder is None else Path(folder)


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its place and moves it there whole: a killed run leaves the last good one.

    Args:
        failed_save: Whether a save that fails, e.g. on a full disk, is to "stop" the run or to let it "continue";
            the last good checkpoint stays in either case.
    """

    def __init__(self, *, failed_save: Literal["stop", "continue"] = "stop") -> None:
        super().__init__()
        self.failed_save = failed_save

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            CheckpointError: If that fails and the run is to stop.
        """
        path = Path(path)
        try:
            self._write(checkpoint, path)
        except (OSError, RuntimeError) as error:  # torch turns an error of the file into its own RuntimeError
            kept = "the last good file is kept" if path.is_file() else "there is no earlier one"
            told = (
                f"{path} cannot be saved ({str(error).splitlines()[0]}); {kept}. Make room or mend the disk"
            )
            if self.failed_save == "stop":
                raise CheckpointError(
                    f"{told}, or let the run go on with failed_save 'continue' of vjepa.training.AtomicCheckpointIO."
                ) from error
            log.error("%s: the run goes on without this checkpoint.", told)

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, never running anything that is in it."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such checkpoint. Give a .ckpt file, or 'last'.")
        check_whole(path)
        return torch.load(path, map_location=map_location, weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


class ExportEncoder(L.Callback):
    """Writes the networks to `<log dir>/export` whenever a fit ends, for `vjepa.load_encoder`."""

    folder: Path | None = None

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the folder, from the first rank."""
        if not keeps_files(trainer):
            return
        objective, folder = pl_module.objective, run_folder(trainer)
        assert isinstance(objective, Objective) and folder is not None
        networks = {name: complete(network) for name, network in objective.exported().items()}
        if trainer.is_global_zero:
            self.folder = save_folder(folder / "export", networks.pop("encoder"), **networks)
            log.info("%s written to %s", ", ".join(["encoder", *networks]), self.folder)


class MonitoredFigures(L.Callback):
    """Sees that the figures by which checkpoints are chosen are logged, as soon as it can be known."""

    _known = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look for them after the first step that is logged.

        Raises:
            ValueError: If one is not there, and will not be.
        """
        figures = sorted(trainer.callback_metrics)
        if self._known or "train/lr" not in figures:
            return
        self._known = True
        # validation logs the loss and the health of features, as training does
        later = [name.replace("train/", "val/") for name in figures if name.startswith("train/")]
        self._check(trainer, figures + (later if any(trainer.num_val_batches) else []))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look for those of validation after the first one.

        Raises:
            ValueError: If one is not there.
        """
        if self._known:
            self._check(trainer, sorted(trainer.callback_metrics))

    def _check(self, trainer: L.Trainer, figures: list[str]) -> None:
        for callback in trainer.checkpoint_callbacks:
            monitor = getattr(callback, "monitor", None)
            if monitor is None or monitor in figures or monitor.startswith("probe/"):
                continue
            near = difflib.get_close_matches(monitor, figures, n=1)
            advice = f"Did you mean {near[0]}?" if near else f"There are {', '.join(figures)}."
            raise SettingError(f"ModelCheckpoint: monitor {monitor} is no figure of this run. {advice}")


class LastCheckpoint(L.Callback):
    """Saves the state at the end of training, so that the last checkpoint is the last step's.

    Args:
        name: File name, in the folder of the run's checkpoints.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the checkpoint; a run that only tries one batch leaves none."""
        if keeps_files(trainer):
            trainer.save_checkpoint(Path(str(trainer.log_dir)) / "checkpoints" / self.name)


class ProgressLines(L.Callback):
    """One line of progress every so often, where no terminal shows a bar.

    Args:
        every_seconds: Least time between two lines.
    """

    def __init__(self, *, every_seconds: float = 15.0) -> None:
        self.every_seconds = every_seconds
        self.last = float("-inf")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the step and what is known of it."""
        now = time.monotonic()
        if now - self.last < self.every_seconds or not trainer.is_global_zero:
            return
        self.last = now
        known: dict[str, Tensor] = trainer.logged_metrics | trainer.callback_metrics
        every = cast("Any", trainer).log_every_n_steps  # set by the trainer, not declared by it
        measured = max(trainer.global_step // every * every, 1)
        health = self._figures(known, "target_std", "target_rank", "loss_over_mean")
        log.info(
            "step %d of %s  %s  (step %d: %s)",
            *(trainer.global_step, trainer.estimated_stepping_batches, self._figures(known, "loss")),
            *(measured, health),
        )

    def _figures(self, known: dict[str, Tensor], *names: str) -> str:
        return "  ".join(f"{n} {float(known[f'train/{n}']):.3f}" for n in names if f"train/{n}" in known)
