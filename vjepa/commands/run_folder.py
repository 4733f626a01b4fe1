"""The folders of runs: `version_N` for each fit, a link `latest` to the last one that ended, and checkpoints."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from vjepa.checkpoints.opening import check_whole, open_safely
from vjepa.checkpoints.strict import CheckpointError

log = logging.getLogger(__name__)

LATEST, LAST = "latest", "last.ckpt"


def loggers_of(root: Path) -> list[Logger]:
    """Return the loggers of a new run, in the next free folder `version_N` below `root`.

    The first rank makes the folder, so that a fit that starts at the same time takes another one; the loggers of the
    other ranks write nothing.
    """
    first = cast("Any", rank_zero_only).rank == 0
    csv = CSVLogger(root, name="", version=_claimed(root) if first else None)
    return [csv, TensorBoardLogger(root, name="", version=csv.version)]


def _claimed(root: Path) -> int:
    root.mkdir(parents=True, exist_ok=True)
    while True:
        version = CSVLogger(root, name="").version  # the one after the last
        with suppress(FileExistsError):  # another fit was faster
            (root / f"version_{version}").mkdir()
            return int(version)


def link_latest(run: Path) -> Path:
    """Make the link `latest` beside a run's folder lead to it, and return it; return `run` if that is not possible."""
    link = run.parent / LATEST
    temporary = link.with_name(f".{LATEST}.{os.getpid()}")
    try:
        temporary.symlink_to(run.name, target_is_directory=True)
        os.replace(temporary, link)  # at once: other runs read the link
    except OSError as error:
        temporary.unlink(missing_ok=True)
        log.warning("%s cannot be made (%s): name the run itself, %s", link, error.strerror, run)
        return run
    return link


def run_root(settings: Namespace) -> Path:
    """Return the folder of a recipe's runs: `--trainer.default_root_dir`, or `runs`."""
    return Path(settings.trainer.default_root_dir or "runs")


def checkpoint_at(path: Path) -> dict[str, Any]:
    """Return the content of a run's checkpoint, with memory-mapped tensors.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If torch did not write it, or it is not a checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint. Give a .ckpt file, or 'last'.")
    content = open_safely(path)
    check_whole(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds {type(content).__name__}, not a run. Give a .ckpt file of `fit`."
        )
    return content


def newest_checkpoint(root: Path) -> Path | None:
    """Return the newest `last.ckpt` below `root`, if there is one."""
    return max(root.glob(f"**/{LAST}"), key=lambda path: path.stat().st_mtime, default=None)
