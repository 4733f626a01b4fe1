"""Errors that a user can cause, and the nearest real name for a misspelt one."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path

from vjepa.names import redacted

# A sibling below this similarity is not a likely misspelling: then the whole tree of names is searched.
LIKELY = 0.6


class VjepaError(Exception):
    """A mistake in what the user gave, or a file that cannot be used.

    Its message is one line that says what was got, what is allowed and what to do. The command line ends with exit
    code 2 for a `VjepaError`; any other exception is a crash and ends with 1. Credentials of URLs are hidden.
    """

    def __str__(self) -> str:
        return redacted(super().__str__())


class UsageError(VjepaError):
    """A wrong command line, recipe or environment."""


class SettingError(VjepaError, ValueError):
    """A value that a constructor or function does not accept."""


class MissingPackageError(VjepaError, ImportError):
    """An optional package that is not installed; the message gives the `pip install` line."""


class DecodeError(VjepaError, RuntimeError):
    """A video file that cannot be read as asked: its path, and the reason in one line."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(str(path), reason)  # both kept as args: the error crosses process borders by pickle
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return redacted(f"{self.path}: {self.reason}")


class FileError(VjepaError, ValueError):
    """A file whose content is not what it should be; the message names the file and the place in it."""


class StoppedBySignal(SystemExit):
    """The end of a run that a signal requested, with the exit code that a shell gives it.

    The message says what was done with the state of the run.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(128 + number)
        self.message = f"ended by {signal.Signals(number).name}: {message}"


def _similarity(a: str, b: str) -> float:
    return SequenceMatcher(None, a.lower(), b.lower()).ratio()


def first_wrong(key: str, known: Iterable[str]) -> str:
    """Return a dotted key up to its first part that leads to no name in `known`, or the whole key.

    >>> first_wrong("modl.depth", ["model.depth"]), first_wrong("model.dept", ["model.depth"])
    ('modl', 'model.dept')
    """
    parts = key.split(".")
    begun = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    names = [f"{name}." for name in known]
    return next((start for start in begun if not any(name.startswith(f"{start}.") for name in names)), key)


def did_you_mean(key: str, known: Iterable[str]) -> str | None:
    """Return the name in `known` that `key` most likely meant, or `None` if `known` is empty.

    Keys may be dotted. The first wrong part is compared with its real siblings; if none is similar, the whole key
    and its last part are compared with all names.

    >>> did_you_mean("data.num_clip", ["data.num_clips", "data.root", "trainer.max_steps"])
    'data.num_clips'
    >>> did_you_mean("modl.depth", ["model.depth", "data.root"])
    'model'
    """
    names = sorted(set(known))
    above, dot, wrong = first_wrong(key, names).rpartition(".")
    parent = above + dot
    siblings = {name[len(parent) :].split(".")[0] for name in names if name.startswith(parent)}
    best = max(sorted(siblings), key=lambda name: _similarity(wrong, name), default="")
    if _similarity(wrong, best) >= LIKELY:
        return parent + best

    def likeness(name: str) -> float:
        return max(_similarity(key, name), _similarity(key.split(".")[-1], name.split(".")[-1]))

    return max(names, key=likeness, default=None)
