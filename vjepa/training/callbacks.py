"""Callbacks around the training loop: atomic checkpoints, the exported folder, lines of progress."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import torch
from lightning.fabric.plugins.io import CheckpointIO
from torch import nn

from vjepa.checkpoints import save_folder
from vjepa.checkpoints.opening import check_whole
from vjepa.checkpoints.strict import CheckpointError
from vjepa.data import VideoDataModule
from vjepa.errors import SettingError
from vjepa.features.clip_spec import ClipSpec
from vjepa.files import replacing
from vjepa.models import VideoEncoder
from vjepa.objectives import Objective
from vjepa.training.sharding import gathered_network

log = logging.getLogger(__name__)


def keeps_files(trainer: L.Trainer) -> bool:
    """Return whether a run writes files; one that only tries a batch (`fast_dev_run`) does not."""
    only_tries = cast("Any", trainer).fast_dev_run  # set by the trainer, not declared by it
    return run_folder(trainer) is not None and not only_tries


def run_folder(trainer: L.Trainer) -> Path | None:
    """Return the folder of the run on the first rank, without communication.

    `trainer.log_dir` is the same folder, but all ranks must read it together.
    """
    first = trainer.loggers[0] if trainer.loggers else None
    folder = first.log_dir or first.save_dir if first else trainer.default_root_dir
    return None if folder is None else Path(folder)


def save_in_run(trainer: L.Trainer, name: str) -> Path | None:
    """Save the state to `checkpoints/<name>` of the run's folder; return its path, None if the run writes no files."""
    if not keeps_files(trainer):
        return None
    path = Path(str(trainer.log_dir)) / "checkpoints" / name
    trainer.save_checkpoint(path)
    return path


def log_interval(trainer: L.Trainer) -> int:
    """Return `log_every_n_steps`, which the trainer sets but does not declare."""
    return cast("Any", trainer).log_every_n_steps


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint to a temporary file and then renames it: a killed run leaves the last good one.

    Args:
        failed_save: Whether a save that fails, for example on a full disk, should "stop" the run or let it
            "continue"; the last good checkpoint stays in either case.
    """

    def __init__(self, *, failed_save: Literal["stop", "continue"] = "stop") -> None:
        super().__init__()
        self.failed_save = failed_save

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            CheckpointError: If that fails and the run should stop.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch turns an error of the file into its own RuntimeError
            kept = "the last good file is kept" if path.is_file() else "there is no earlier one"
            reason = str(error).splitlines()[0]
            message = f"{path} cannot be saved ({reason}); {kept}. Free some space or repair the disk"
            if self.failed_save == "stop":
                raise CheckpointError(
                    f"{message}, or let the run continue: failed_save 'continue' of vjepa.training.AtomicCheckpointIO."
                ) from error
            log.error("%s: the run continues without this checkpoint.", message)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint without running any code in it."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such checkpoint. Give a .ckpt file, or 'last'.")
        check_whole(path)
        return torch.load(path, map_location=map_location, weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


class ExportEncoder(L.Callback):
    """Writes the networks to `<log dir>/export` at the end of a fit, for `vjepa.load_encoder`."""

    folder: Path | None = None

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the folder, from the first rank."""
        if not keeps_files(trainer):
            return
        objective, folder = pl_module.objective, run_folder(trainer)
        assert isinstance(objective, Objective) and folder is not None
        networks = {name: gathered_network(network) for name, network in objective.exported().items()}
        note_clips(networks["encoder"], trainer)
        if trainer.is_global_zero:
            self.folder = save_folder(folder / "export", networks.pop("encoder"), **networks)
            log.info("%s written to %s", ", ".join(["encoder", *networks]), self.folder)


def note_clips(encoder: nn.Module, trainer: L.Trainer) -> None:
    """Note the clips of the run with its encoder: the default clips of features and probes."""
    data = getattr(trainer, "datamodule", None)
    if isinstance(encoder, VideoEncoder) and isinstance(data, VideoDataModule) and data.parts:
        first = data.parts[0]
        transform = (first.transform or data.transform).centred()
        spec = ClipSpec.of_training(first.sampler or data.sampler, transform)
        encoder.trained_clips = None if spec is None else spec.to_json()


class MonitoredFigures(L.Callback):
    """Checks as early as possible that the figures by which checkpoints are chosen are logged."""

    _known = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check them after the first logged step.

        Raises:
            SettingError: If one is missing and will not be logged later.
        """
        figures = sorted(trainer.callback_metrics)
        if self._known or "train/lr" not in figures:
            return
        self._known = True
        # validation logs the loss and the health of features, as training does
        later = [name.replace("train/", "val/") for name in figures if name.startswith("train/")]
        self._check(trainer, figures + (later if any(trainer.num_val_batches) else []))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check those of validation after the first one.

        Raises:
            SettingError: If one is missing.
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
            raise SettingError(f"ModelCheckpoint: monitor {monitor} is not a figure of this run. {advice}")


class LastCheckpoint(L.Callback):
    """Saves the state at the end of training, so that the last checkpoint is the last step's.

    Args:
        name: File name, in the folder of the run's checkpoints.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the checkpoint, if the run writes files."""
        save_in_run(trainer, self.name)
