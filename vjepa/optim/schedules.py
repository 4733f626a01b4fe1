"""Schedules: the value at each optimiser step, as pure functions of the step and the length of the run.

Steps count from 0. The published schedules (arXiv 2404.08471, appendix) use a counter that starts at 1, so
all but `Linear` evaluate at step + 1. They are written for a run `stretch` times longer than the actual run,
which therefore ends before the schedule does.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from vjepa.errors import SettingError


class Schedule(ABC):
    """Interface of a value that depends on the optimiser step.

    Raises:
        SettingError: If its `stretch` is not above 0, or its `warmup` or `decay` is below 0.
    """

    def __post_init__(self) -> None:
        if not (stretch := getattr(self, "stretch", 1.0)) > 0:
            raise SettingError(
                f"stretch is {stretch}, but it is the length of the schedule divided by that of the run. "
                "Give a number above 0."
            )
        for name in ("warmup", "decay"):
            if not (value := getattr(self, name, 0.0)) >= 0:
                raise SettingError(
                    f"{name} is a number of steps or a share of the run, got {value}. Give 0 or more."
                )

    @abstractmethod
    def value(self, step: int, total_steps: int) -> float:
        """Return the value for optimiser step `step`, 0 <= step < total_steps."""


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """A constant value.

    Args:
        at: The value.
    """

    at: float

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        return self.at


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """A line from `start` at step 0 to `end` at the end of the stretched run (momentum of V-JEPA).

    Args:
        start: Value at step 0.
        end: Value at the end of the stretched run.
        stretch: Length of the line divided by the length of the run.
    """

    start: float
    end: float
    stretch: float = 1.0

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        return _line(self.start, self.end, step / (self.stretch * total_steps))


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from `start` to `end` (weight decay of V-JEPA).

    Args:
        start: Value before step 0.
        end: Value at the end of the stretched run, and after it.
        stretch: Length of the half cosine divided by the length of the run.
    """

    start: float
    end: float
    stretch: float = 1.0

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        return _half_cosine(self.start, self.end, (step + 1) / max(int(self.stretch * total_steps), 1))


@dataclass(frozen=True, kw_only=True)
class WarmupCosine(Schedule):
    """A warm-up line from `start` to `peak`, then half a cosine to `end` (learning rate of V-JEPA).

    Args:
        start: Value before the warm-up.
        peak: Value at the end of the warm-up.
        end: Value at the end of the stretched run.
        warmup: Length of the warm-up: optimiser steps if 1 or more, else a share of the run.
        stretch: Length of the schedule divided by the length of the run.
    """

    peak: float
    start: float = 0.0
    end: float = 0.0
    warmup: float = 0.1
    stretch: float = 1.0

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        count, warmup = step + 1, _warmup_steps(self.warmup, total_steps)
        if count < warmup:
            return _line(self.start, self.peak, count / warmup)
        length = int(self.stretch * total_steps) - warmup
        return _half_cosine(self.peak, self.end, (count - warmup) / max(length, 1))


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Schedule):
    """A warm-up line from `start` to `peak`, then `peak`, then a line to `end` (V-JEPA 2's cool-down, V-JEPA 2-AC).

    Args:
        peak: Value between warm-up and decay.
        start: Value before the warm-up.
        end: Value at the end of the stretched run.
        warmup: Length of the warm-up: optimiser steps if 1 or more, else a share of the run.
        decay: Length of the decay, which ends with the stretched run: steps if more than 1, else a share of that run.
        stretch: Length of the schedule divided by the length of the run.
    """

    peak: float
    start: float = 0.0
    end: float = 0.0
    warmup: float = 0.0
    decay: float = 0.1
    stretch: float = 1.0

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        count, length = step + 1, int(self.stretch * total_steps)
        warmup = _warmup_steps(self.warmup, total_steps)
        decay = int(self.decay if self.decay > 1 else self.decay * length)
        if count < warmup:
            return _line(self.start, self.peak, count / warmup)
        return _line(self.peak, self.end, max(count - (length - decay), 0) / max(decay, 1))


def _warmup_steps(warmup: float, total_steps: int) -> int:
    return int(warmup if warmup >= 1 else warmup * total_steps)


def _line(start: float, end: float, share: float) -> float:
    return start + min(share, 1.0) * (end - start)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
