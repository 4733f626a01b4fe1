"""Schedules: a value for each optimiser step, as pure functions of the step and the length of the run.

Step numbers count from 0. The published schedules (arXiv 2404.08471, appendix) are written for a counter that
starts at 1 and for a run `stretch` times longer than it is, so that they are cut before their end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from vjepa.errors import SettingError


class Schedule(ABC):
    """A value that depends on how far the run is."""

    @abstractmethod
    def value(self, step: int, total_steps: int) -> float:
        """The value to use in optimiser step `step`, 0 <= step < total_steps."""


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """One value all along.

    Args:
        at: The value.
    """

    at: float

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        return self.at


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """A straight line from `start` at step 0 to `end` after `stretch` times the run (momentum of V-JEPA).

    Args:
        start: Value of step 0.
        end: Value at the end of the stretched run.
        stretch: Length of the line over the length of the run.
    """

    start: float
    end: float
    stretch: float = 1.0

    def __post_init__(self) -> None:
        _check_lengths(stretch=self.stretch)

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        share = min(step / (self.stretch * total_steps), 1.0)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from `start` to `end` (weight decay of V-JEPA).

    Args:
        start: Value before step 0.
        end: Value at the end of the stretched run, and after it.
        stretch: Length of the half wave over the length of the run.
    """

    start: float
    end: float
    stretch: float = 1.0

    def __post_init__(self) -> None:
        _check_lengths(stretch=self.stretch)

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        return _half_wave(self.start, self.end, (step + 1) / max(int(self.stretch * total_steps), 1))


@dataclass(frozen=True, kw_only=True)
class WarmupCosine(Schedule):
    """A line from `start` to `peak` over the warm-up, then half a cosine to `end` (learning rate of V-JEPA).

    Args:
        start: Value before the warm-up.
        peak: Value at the end of the warm-up.
        end: Value at the end of the stretched run.
        warmup: Length of the warm-up: optimiser steps if 1 or more, else a share of the run.
        stretch: Length of the whole schedule over the length of the run.
    """

    peak: float
    start: float = 0.0
    end: float = 0.0
    warmup: float = 0.1
    stretch: float = 1.0

    def __post_init__(self) -> None:
        _check_lengths(stretch=self.stretch, warmup=self.warmup)

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        count = step + 1
        warmup = int(self.warmup if self.warmup >= 1 else self.warmup * total_steps)
        if count < warmup:
            return self.start + count / warmup * (self.peak - self.start)
        length = int(self.stretch * total_steps) - warmup
        return _half_wave(self.peak, self.end, (count - warmup) / max(length, 1))


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Schedule):
    """A line from `start` to `peak`, then `peak`, then a line to `end` (V-JEPA 2: cool-down, and 2-AC).

    Args:
        peak: Value between warm-up and decay.
        start: Value before the warm-up.
        end: Value at the end of the stretched run.
        warmup: Length of the warm-up: optimiser steps if 1 or more, else a share of the run.
        decay: Length of the decay, up to the end of the stretched run: steps if more than 1, else a share of it.
        stretch: Length of the whole schedule over the length of the run.
    """

    peak: float
    start: float = 0.0
    end: float = 0.0
    warmup: float = 0.0
    decay: float = 0.1
    stretch: float = 1.0

    def __post_init__(self) -> None:
        _check_lengths(stretch=self.stretch, warmup=self.warmup, decay=self.decay)

    def value(self, step: int, total_steps: int) -> float:
        """See `Schedule.value`."""
        count, length = step + 1, int(self.stretch * total_steps)
        warmup = int(self.warmup if self.warmup >= 1 else self.warmup * total_steps)
        decay = int(self.decay if self.decay > 1 else self.decay * length)
        if count < warmup:
            return self.start + count / warmup * (self.peak - self.start)
        share = min(max(count - (length - decay), 0) / max(decay, 1), 1.0)
        return self.peak + share * (self.end - self.peak)


def _check_lengths(*, stretch: float, **parts: float) -> None:
    if not stretch > 0:
        raise SettingError(f"stretch is {stretch}: the length of a schedule over that of the run is above 0.")
    for name, value in parts.items():
        if not value >= 0:
            raise SettingError(
                f"{name} is a number of steps or a share of the run, got {value}. Give 0 or more."
            )


def _half_wave(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
