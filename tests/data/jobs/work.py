"""Work for jobs: functions that worker processes find by name."""

import multiprocessing
import os
import signal
import time
from pathlib import Path


def double(item: int) -> dict:
    return {"twice": 2 * item, "pair": (item, item)}


def misbehave(item: str) -> str:
    """Hang, crash, raise or answer, as it is told."""
    if item == "hang":
        time.sleep(3600)
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "leave":
        os._exit(7)
    if item == "raise":
        raise ValueError("no such\n thing")
    return item.upper()


def slowly(item: str) -> str:
    """Write down that the item was done, after a while; a line with the process it was done in."""
    log, _, name = item.partition("|")
    time.sleep(0.05)
    with Path(log).open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    return name


def lose_the_ray_worker_once(item: str) -> str:
    """The first to come here kills the Ray worker that its process is a child of, as a lost node would be."""
    folder, _, name = item.partition("|")
    if name == "5":
        try:
            (Path(folder) / "lost").touch(exist_ok=False)
        except FileExistsError:
            return name
        os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
        time.sleep(3600)
    return name


def read(path: str) -> str:
    return Path(path).read_text()


def end_once(item: str) -> str:
    """Kill or stop the process the first time, as another program would; answer the second time."""
    folder, _, sent = item.partition("|")
    mark = Path(folder) / sent
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.Signals[sent])
    return sent
