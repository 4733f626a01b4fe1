"""Work on many items on a Ray cluster: the same worker processes as on one machine, in tasks that are retried."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from vjepa.data.jobs.local import JobResult, local_results
from vjepa.errors import UsageError

Item = TypeVar("Item")
Value = TypeVar("Value")

MAX_RETRIES = 3  # of a task whose worker was lost
MAX_ITEMS_PER_TASK = 64  # a task takes a second to start, and all of it is repeated if its worker is lost


def ray_results(
    work: Callable[[Item], Value],
    items: Sequence[tuple[int, Item]],
    *,
    num_processes: int,
    timeout_seconds: float | None = None,
) -> Iterator[JobResult[Value]]:
    """Do what `local_results` does, on a running cluster or one started for this call.

    `num_processes` is the number of parallel tasks; 0 means as many as the cluster has cores.

    Raises:
        UsageError: If Ray is not installed, or no cluster answers or can be started.
    """
    try:
        import ray
    except ModuleNotFoundError as e:
        raise UsageError('--engine ray needs Ray. Install it: pip install "vjepa-toolkit[ray]"') from e

    is_mine = not ray.is_initialized()
    if is_mine:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except (RuntimeError, TimeoutError, ConnectionError) as e:
            raise UsageError(
                f"no Ray to work on: {e}. Start one with `ray start --head` and run again with RAY_ADDRESS=auto, "
                "or omit --engine ray."
            ) from e
    task: Any = ray.remote(max_retries=MAX_RETRIES)(_task)
    slots = num_processes or int(ray.cluster_resources().get("CPU", 1))
    waiting = deque(_chunks(items, slots))
    running: dict[ray.ObjectRef, Sequence[tuple[int, Item]]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                chunk = waiting.popleft()
                running[task.remote(work, chunk, timeout_seconds, os.getcwd())] = chunk
            (done,), _ = ray.wait(list(running), num_returns=1)
            chunk = running.pop(done)
            try:
                results = ray.get(done)
            except ray.exceptions.RayTaskError:
                raise  # no worker was lost: the task itself could not start
            except ray.exceptions.RayError as e:
                lost = f"lost with its Ray worker {1 + MAX_RETRIES} times ({type(e).__name__})"
                results = [JobResult(index, None, lost, True) for index, _ in chunk]
            yield from results
    finally:
        for ref in running:
            ray.cancel(ref, force=True)
        if is_mine:
            ray.shutdown()


def _chunks(items: Sequence[tuple[int, Item]], slots: int) -> Iterator[Sequence[tuple[int, Item]]]:
    """Split the items so that every slot has several chunks."""
    size = max(1, min(MAX_ITEMS_PER_TASK, len(items) // (4 * slots)))
    return (items[start : start + size] for start in range(0, len(items), size))


def _task(
    work: Callable[[Item], Value],
    items: Sequence[tuple[int, Item]],
    timeout_seconds: float | None,
    folder: str,
) -> list[JobResult[Value]]:
    """Run one task in a child of the Ray worker, so that a hang or crash of an item does not affect the worker."""
    if os.path.isdir(folder):  # on this machine or a shared file system: relative paths start there
        os.chdir(folder)
    return list(local_results(work, items, num_processes=1, timeout_seconds=timeout_seconds))
