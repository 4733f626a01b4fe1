"""What a user typed wrong: an error reported in one line, and the real name nearest to a wrong one."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from difflib import SequenceMatcher

# A sibling below this similarity is no likely misspelling: then the whole tree of names is searched.
LIKELY = 0.6


class UsageError(Exception):
    """A mistake in what the user gave. Its message is one line: what was got, what is allowed, what to do."""


class StoppedBySignal(SystemExit):
    """The end of a run that a signal asked for, with the exit code a shell would give it.

    Args:
        number: The signal.
        told: What was done about the run's state.
    """

    def __init__(self, number: int, told: str) -> None:
        super().__init__(128 + number)
        self.told = f"ended by {signal.Signals(number).name}: {told}"


def _similarity(a: str, b: str) -> float:
    return SequenceMatcher(None, a.lower(), b.lower()).ratio()


def first_wrong(key: str, known: Iterable[str]) -> str:
    """`key` up to its first part that leads to no name in `known`; all of it if each part does.

    >>> first_wrong("modl.depth", ["model.depth"]), first_wrong("model.dept", ["model.depth"])
    ('modl', 'model.dept')

    Args:
        key: A dotted key.
        known: All real names.
    """
    parts = key.split(".")
    begun = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    names = [f"{name}." for name in known]
    return next((start for start in begun if not any(name.startswith(f"{start}.") for name in names)), key)


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The name among `known` that `key` most likely meant, `None` where nothing is known.

    Keys may be dotted. The first part that leads nowhere is compared with its real siblings; if none is
    alike, the whole key and its last part are compared with all names.

    >>> nearest("data.num_clip", ["data.num_clips", "data.root", "trainer.max_steps"])
    'data.num_clips'
    >>> nearest("modl.depth", ["model.depth", "data.root"])
    'model'

    Args:
        key: What was written.
        known: All real names.
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
