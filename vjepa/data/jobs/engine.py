"""One function over many items: on this machine or on a Ray cluster, with a time limit, resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from vjepa.data.jobs.journal import Journal
from vjepa.data.jobs.local import JobResult, local_results
from vjepa.data.jobs.ray import ray_results
from vjepa.errors import SettingError

__all__ = ["Engine", "JobResult", "run_jobs"]

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
    """Do `work` for every item; results come as they are done, each with the number of its item.

    An item that raises, hangs or crashes its process has an `error` for a result, and the rest goes on. If the
    caller stops, or is killed, all processes end.

    >>> sorted(result.value for result in run_jobs(abs, [-1, 2, -3]))
    [1, 2, 3]

    Args:
        work: A function of one item; for other processes, one that pickles by name.
        items: What to work on.
        engine: Processes of this machine, or tasks of a Ray cluster (`pip install "vjepa-toolkit[ray]"`), where a
            lost worker's items are done again by another.
        num_processes: How many at a time. 0: of "local", none but this one, without a time limit; of "ray", as
            many as the cluster has cores.
        timeout_seconds: How long an item may take before its process is killed.
        journal: File of JSON lines to which results are written, and from which those of an earlier run with the
            same key are taken instead of doing them again, errors among them. Values must be plain JSON.
        key: What names an item in the journal; of two items with one key, either result serves for both.

    Raises:
        ValueError: A time limit is asked for without a process to kill.
        UsageError: The journal is none, or Ray is not installed.
    """
    if num_processes < 0 or (timeout_seconds is not None and timeout_seconds <= 0):
        raise SettingError(
            f"num_processes {num_processes}, timeout_seconds {timeout_seconds}: the one must be at least 0, the "
            "other above it. Leave timeout_seconds away for no limit."
        )
    if engine == "local" and not num_processes and timeout_seconds is not None:
        raise SettingError(
            f"timeout_seconds {timeout_seconds:g} with num_processes 0: what hangs can only be ended in another "
            "process. Give num_processes 1 or more, or no timeout_seconds."
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
        left = [(index, item) for index, item in numbered if keys[index] not in before]
        for result in results(work, left, num_processes=num_processes, timeout_seconds=timeout_seconds):
            yield kept.add(keys[result.index], result)
