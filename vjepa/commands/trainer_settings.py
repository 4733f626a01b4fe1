"""The trainer's settings: what a machine or a run cannot have, in one line before the run starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jsonargparse import Namespace
from lightning.pytorch.accelerators import AcceleratorRegistry, CUDAAccelerator, MPSAccelerator
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vjepa.errors import UsageError

NOTHING = (("max_steps", -1), ("max_epochs", -1), ("limit_train_batches", 1.0))


def check_length(settings: Namespace) -> None:
    """Check that a fit has something to train.

    Raises:
        UsageError: If a limit is 0.
    """
    for name, unlimited in NOTHING:
        if settings[name] == 0:
            raise UsageError(
                f"--trainer.{name} 0: there is nothing to train. Give more than 0, or {unlimited:g} for no limit."
            )


@contextmanager
def explained_trainer(settings: Namespace) -> Iterator[None]:
    """Turn what Lightning says of the trainer's settings inside the block into a `UsageError` of one line."""
    _check_accelerator(settings.accelerator)
    if settings.log_every_n_steps is not None and settings.log_every_n_steps < 1:
        raise UsageError(f"--trainer.log_every_n_steps {settings.log_every_n_steps}: give 1 or more.")
    if settings.barebones:
        raise UsageError("--trainer.barebones true: a run has loggers and callbacks. Omit it.")
    try:
        yield
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        chosen = (f"--trainer.{name} {settings[name]}" for name in ("accelerator", "strategy", "devices"))
        raise UsageError(
            f"the trainer cannot be built: {' '.join(str(error).split()).rstrip('.')}. Correct its settings, among "
            f"them {', '.join(chosen)}; `vjepa fit --help` lists all, `vjepa doctor` the devices of this machine."
        ) from error


def _check_accelerator(given: object) -> None:
    is_there = {"gpu": CUDAAccelerator.is_available() or MPSAccelerator.is_available()}
    is_there |= {"cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()}
    known = sorted({"auto", "gpu", *AcceleratorRegistry.available_accelerators()})
    if isinstance(given, str) and given not in known:
        raise UsageError(f"--trainer.accelerator {given} is not known. Give one of {', '.join(known)}.")
    if isinstance(given, str) and not is_there.get(given, True):
        raise UsageError(
            f"--trainer.accelerator {given}: PyTorch finds no such device on this machine. Give cpu, or auto for the "
            "best that there is; `vjepa doctor` lists the devices."
        )
