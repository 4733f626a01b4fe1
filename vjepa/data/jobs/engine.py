"""Resumable application of one function to many items, on this machine or a Ray cluster, with a time limit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from vjepa.data.jobs.journal import Journal
from vjepa.data.jobs.local import JobResult, local_results
from vjepa.data.jobs.ray import ray_results
from vjepa.errors import SettingError

__all__ = ["Engine", "JobResult", "Running", "run_jobs"]

Item = TypeVar("Item")
Value = TypeVar("Value")
Engine = Literal["local", "ray"]


def run_jobs(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    engine: Engine = "local",
    num_processes: int = 0,
    timeout_seconds: float | None = None,
    journal: Path | None = None,
    key: Callable[[Item], str] = str,
) -> Iterator[JobResult[Value]]:
    """Yield the result of `work` for every item in order of completion, each with the index of its item.

    An item that raises, hangs or crashes its process has an `error` as its result, and the others continue. If the
    caller stops or is killed, all processes end.

    >>> sorted(result.value for result in run_jobs(abs, [-1, 2, -3]))
    [1, 2, 3]

    Args:
        work: A function of one item; for other processes, one that pickles by name.
        items: The items.
        engine: Processes of this machine, or tasks of a Ray cluster (`pip install "vjepa-toolkit[ray]"`), where
            another worker repeats the items of a lost one.
        num_processes: Number of parallel processes. With "local", 0 uses only this process, without a time limit.
            With "ray", 0 means as many as the cluster has cores.
        timeout_seconds: Time limit per item; beyond it the item's process is killed.
        journal: File of JSON lines for the results. Results in it from an earlier run with the same key, errors
            included, are used again. Values must be plain JSON.
        key: Names an item in the journal; two items with one key share a result.

    Raises:
        ValueError: If a time limit is given without a process to kill.
        UsageError: If the file is not a journal, or Ray is not installed.
    """
    if num_processes < 0 or (timeout_seconds is not None and timeout_seconds <= 0):
        raise SettingError(
            f"num_processes {num_processes}, timeout_seconds {timeout_seconds}: the first must be at least 0, the "
            "second above 0. Omit timeout_seconds for no limit."
        )
    if engine == "local" and not num_processes and timeout_seconds is not None:
        raise SettingError(
            f"timeout_seconds {timeout_seconds:g} with num_processes 0: only work in another process can be ended. "
            "Give num_processes 1 or more, or no timeout_seconds."
        )
    results = {"local": local_results, "ray": ray_results}[engine]
    numbered = list(enumerate(items))
    if journal is None:
        yield from results(work, numbered, num_processes=num_processes, timeout_seconds=timeout_seconds)
        return
    with Journal(journal) as kept:
        keys = [key(item) for item in items]
        before = dict(kept.done)
        for index, name in enumerate(keys):
            if name in before:
                yield JobResult(index, **before[name])
        open_items = [(index, item) for index, item in numbered if keys[index] not in before]
        for result in results(work, open_items, num_processes=num_processes, timeout_seconds=timeout_seconds):
            yield kept.add(keys[result.index], result)


@dataclass(frozen=True, kw_only=True)
class Running:
    """Settings of `run_jobs` that travel together."""

    engine: Engine = "local"
    num_processes: int = 0
    timeout_seconds: float | None = None
    journal: Path | None = None

    @classmethod
    def filled(
        cls,
        engine: Engine,
        num_processes: int | None,
        timeout_seconds: float | None,
        *,
        default_seconds: float,
        journal: Path | None = None,
    ) -> Running:
        """Return the settings with defaults: one process per core, and a time limit wherever there can be one."""
        if num_processes is None:
            num_processes = (os.cpu_count() or 1) if engine == "local" else 0
        if timeout_seconds is None and (num_processes or engine == "ray"):
            timeout_seconds = default_seconds
        return cls(
            engine=engine, num_processes=num_processes, timeout_seconds=timeout_seconds, journal=journal
        )

    def run(
        self, work: Callable[[Item], Value], items: Sequence[Item], key: Callable[[Item], str] | None = None
    ) -> Iterator[JobResult[Value]]:
        """Call `run_jobs` with these settings; without a `key`, the journal is not used."""
        settings = vars(self) if key else vars(self) | {"journal": None}
        return run_jobs(work, items, key=key or str, **settings)
