"""Batches from the worker processes of a data loader, also if one of them is killed or stopped."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from vjepa.data.jobs.local import is_stopped
from vjepa.errors import VjepaError

log = logging.getLogger(__name__)

# time without a batch after which the workers are looked at; a `DataLoader` without workers has no `timeout`
LOOK_SECONDS = 5.0
OF_A_FIT = "lower --data.num_workers or --data.batch_size; continue with --ckpt_path last."


class LostWorkerError(VjepaError, RuntimeError):
    """The end of a process that reads clips; `message` is that of torch's error, `advice` says how to continue."""

    def __init__(self, message: str, advice: str = OF_A_FIT) -> None:
        super().__init__(
            f"a process that reads clips ended or was killed ({message.splitlines()[0].rstrip('. ')}). If the machine "
            f"ran out of memory, {advice}"
        )


def from_workers(make: Callable[[], DataLoader[Any]], next_file: Callable[[], str]) -> Iterator[Any]:
    """Yield the batches of a loader; if one of its workers is lost, continue with a new loader.

    Args:
        make: Makes a loader of the batches that were not yielded yet, with the `timeout` LOOK_SECONDS if it has
            workers.
        next_file: Returns the first file of these batches, for the error.

    Raises:
        LostWorkerError: If a second worker is lost before the next batch.
    """
    first = make()
    if not first.num_workers:  # this process reads: its errors are not those of a worker
        yield from first
        return
    lost = False
    loader = _iterator(first)
    while True:
        try:
            batch = next_of(loader)
        except StopIteration:
            return
        except LostWorkerError as error:
            if lost:
                advice = "lower --num_workers or --batch_size; then give the same command again."
                raise LostWorkerError(
                    f"twice, the next file is {next_file()}: {error.__cause__}", advice
                ) from error
            lost = True
            log.warning("%s: a process that reads clips was lost; a new one continues", next_file())
            loader = _iterator(make())
            continue
        lost = False
        yield batch


def next_of(loader: Iterator[Any]) -> Any:
    """Return the next batch of a loader; end workers that are stopped, for which it would wait without end.

    Raises:
        LostWorkerError: If a worker is gone.
    """
    while True:
        try:
            return next(loader)
        except (RuntimeError, ConnectionError, EOFError) as error:
            if str(error).startswith("DataLoader timed out"):
                _kill_stopped()
            elif _is_of_a_lost_worker(error):
                raise LostWorkerError(str(error) or type(error).__name__) from error
            else:
                raise


def _iterator(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start a loader without torch's signal handler, which raises wherever the main thread happens to be."""
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    started = iter(loader)
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
    return started


def _kill_stopped() -> None:
    """Kill the stopped children of this process; the loader notices it."""
    for child in multiprocessing.active_children():
        if child.pid is not None and is_stopped(child.pid):
            os.kill(child.pid, signal.SIGKILL)


def _is_of_a_lost_worker(error: Exception) -> bool:
    """Return whether a worker is gone: torch says so, or the pipe that its batch came through broke first."""
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    return "in DataLoader worker process" not in str(error)  # an error that a living worker reported
