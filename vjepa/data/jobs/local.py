"""Work on many items in processes of this machine; each can be killed without harm to the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from vjepa.errors import UsageError

Item = TypeVar("Item")
Value = TypeVar("Value")

LOOK_SECONDS = 5.0  # between two looks at whether a worker is stopped


@dataclass(frozen=True)
class JobResult(Generic[Value]):
    """The result of the item with this `index`: its `value`, or the `error` in one line.

    `ended` is true if its process hung or crashed, and false if the work raised an exception.
    """

    index: int
    value: Value | None
    error: str = ""
    ended: bool = False


def attempt(work: Callable[[Item], Value], index: int, item: Item) -> JobResult[Value]:
    """Do the work for one item; an exception becomes its result and does not stop the others."""
    try:
        return JobResult(index, work(item))
    except Exception as e:  # noqa: BLE001  any error is reported by name, and the other items continue
        return JobResult(index, None, " ".join(f"{type(e).__name__}: {e}".split()))


def local_results(
    work: Callable[[Item], Value],
    items: Sequence[tuple[int, Item]],
    *,
    num_processes: int,
    timeout_seconds: float | None = None,
) -> Iterator[JobResult[Value]]:
    """Yield the results of a function that pickles by name, for items with their index, in order of completion.

    `num_processes` 0 works in this process. The process of an item that takes longer than `timeout_seconds`, or that
    another program has stopped, is killed. An item whose process ended is repeated once, in another process.

    Raises:
        UsageError: If a child ends before its first item.
    """
    if not num_processes:
        yield from (attempt(work, index, item) for index, item in items)
        return
    waiting, by_index = deque(items), dict(items)
    repeated: set[int] = set()
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.index is not None for worker in workers):
            while len(workers) < num_processes and sum(w.index is None for w in workers) < len(waiting):
                workers.append(_Worker(work))
            for worker in workers:
                if waiting and worker.is_idle:
                    worker.give(*waiting.popleft(), timeout_seconds)
            spoken = wait([worker.pipe for worker in workers], _seconds_left(workers))
            now = time.monotonic()  # once: the caller's time for a result does not count
            for worker in workers.copy():
                result = None
                if worker.pipe in spoken:
                    result = worker.answer()
                elif now >= worker.deadline:
                    result = worker.overdue(f"no result after {timeout_seconds:g} s: it hung and was ended")
                elif worker.is_stopped:
                    result = worker.overdue("its process was stopped from outside")
                if worker.is_gone:
                    workers.remove(worker)  # another replaces it, if there is work for it
                if result is not None and result.ended and result.index not in repeated:
                    repeated.add(result.index)
                    waiting.appendleft((result.index, by_index[result.index]))
                elif result is not None:
                    yield result
    finally:
        for worker in workers:
            worker.kill()


def is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped a process, which then does nothing until it continues; False off Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _seconds_left(workers: list[_Worker]) -> float:
    first = min(worker.deadline for worker in workers)
    return min(max(first - time.monotonic(), 0.0), LOOK_SECONDS)


class _Worker:
    """A child process that works on one item after the other."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = _context()
        self.pipe, theirs = context.Pipe()
        self.index: int | None = None
        self.deadline = float("inf")
        self.is_gone = False
        self._is_ready = False
        self._process = context.Process(target=_serve, args=(theirs, work, os.getcwd()), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def is_idle(self) -> bool:
        return self._is_ready and self.index is None and not self.is_gone

    @property
    def is_stopped(self) -> bool:
        return self.index is not None and self._process.pid is not None and is_stopped(self._process.pid)

    def give(self, index: int, item: Any, timeout_seconds: float | None) -> None:
        """Send it an item; the time limit counts from here, not from the start of the process."""
        self.index = index
        self.deadline = time.monotonic() + timeout_seconds if timeout_seconds else float("inf")
        try:
            self.pipe.send((index, item))
        except ConnectionError:
            pass  # it died while idle; the end of its pipe shows that at once

    def answer(self) -> JobResult[Any] | None:
        """Receive a result, or `None` when it is ready; handle its death."""
        try:
            result = self.pipe.recv()
        except (EOFError, ConnectionError):
            return self._died()
        self._is_ready = True
        self.index, self.deadline = None, float("inf")
        return result

    def overdue(self, reason: str) -> JobResult[Any]:
        """Kill it, and return the result of its item."""
        assert self.index is not None
        self.kill()
        return JobResult(self.index, None, reason, True)

    def kill(self) -> None:
        """End the process, if it has not ended."""
        self.is_gone = True
        self.deadline = float("inf")
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _died(self) -> JobResult[Any] | None:
        self._process.join()
        code = self._process.exitcode or 0
        ended = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        self.kill()
        if not self._is_ready:
            raise UsageError(
                f"a worker process ended before its first item ({ended}; its own message is above). In your own "
                'script, begin below `if __name__ == "__main__":`, or use num_processes=0.'
            )
        if self.index is None:
            return None
        return JobResult(self.index, None, f"its process crashed ({ended})", True)


def _context() -> ForkServerContext | SpawnContext:
    """Return how processes start: from a server that has imported the package, if the system supports it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _serve(pipe: Connection, work: Callable[[Any], Any], folder: str) -> None:
    """Run a child."""
    os.chdir(folder)  # the server keeps its first working folder, and paths may be relative
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # there may be one child per core
    try:
        pipe.send(None)
        while True:
            index, item = pipe.recv()
            pipe.send(attempt(work, index, item))
    except (EOFError, ConnectionError):
        return  # the parent is gone


def _end_with_parent() -> None:
    """End the process with its parent; a child that hangs would otherwise outlive a killed parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
