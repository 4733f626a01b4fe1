"""The verdict on the health of a run, in one line: a pure function of a short history of its figures.

The thresholds were chosen on runs on the embedded world at the quickstart's size; docs/howto/health.md has a table
of verdicts on other runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Figures = dict[str, float]  # of one step, by name: `step`, `loss` and those of vjepa/training/health.py
Judgement = Literal["healthy", "partial collapse suspected", "diverging"]

LATEST = 2  # consecutive records that a judgement of features needs: one batch may be an outlier
ALIKE_COSINE = 0.95  # of targets to their mean; healthy runs stayed below 0.65 in their first 200 steps
ALIKE_STD = 0.2  # of targets; healthy runs stayed above 0.67
FEW_DIRECTIONS = 3.0  # effective rank of targets
FAST_EMA_DISTANCE = 0.4  # healthy runs reached 0.26 in 200 steps, learning rate x100 had 0.42 after 10
SEEN = 0.01  # maximum share of the targets in the context; every strategy of this package has 0
STILL_STD = 0.01  # spread of normalised pixels; the embedded world has 0.77


@dataclass(frozen=True)
class Verdict:
    """A judgement, its reason and what to change; both are empty where a run is healthy."""

    judgement: Judgement = "healthy"
    why: str = ""
    change: str = ""

    def __str__(self) -> str:
        return f"{self.judgement}: {self.why}, {self.change}" if self.why else self.judgement


def verdict(history: Sequence[Figures]) -> Verdict:
    """Judge a run.

    >>> str(verdict([{"step": 10, "loss": float("nan")}]))
    'diverging: loss is not finite at step 10, lower model.lr or lengthen its warm-up'

    The figures are of logged steps, oldest first; missing figures are not judged.
    """
    if not history:
        return Verdict()
    latest = history[-LATEST:]
    return _not_finite(history[-1]) or _given(history[-1]) or _fast(latest) or _alike(history) or Verdict()


def _not_finite(now: Figures) -> Verdict | None:
    bad = [name for name, value in now.items() if not math.isfinite(value)]
    if not bad:
        return None
    why = f"{bad[0]} is not finite at step {now.get('step', 0):.0f}"
    return Verdict("diverging", why, "lower model.lr or lengthen its warm-up")


def _given(now: Figures) -> Verdict | None:
    """Judge masks and clips, for which one batch is enough."""
    if (seen := now.get("target_seen", 0.0)) > SEEN:
        why = f"the masks hide too little: {100 * seen:.0f} % of the targets are in the context"
        return Verdict("partial collapse suspected", why, "make context and target of the masks disjoint")
    if (std := now.get("video_std", 1.0)) < STILL_STD:
        why = f"the clips of a batch are all one image (video_std {std:.2g})"
        return Verdict("partial collapse suspected", why, "look at the data with `vjepa data check`")
    return None


def _fast(latest: Sequence[Figures]) -> Verdict | None:
    distances = [figures.get("ema_distance", 0.0) for figures in latest]
    if len(latest) < LATEST or min(distances) <= FAST_EMA_DISTANCE:
        return None
    why = f"the weights run away from their average (ema_distance {distances[-1]:.2f})"
    return Verdict("diverging", why, "lower model.lr or lengthen its warm-up")


def _alike(history: Sequence[Figures]) -> Verdict | None:
    latest = history[-LATEST:]
    if len(latest) < LATEST:
        return None
    cosine = min(figures.get("target_cosine", 0.0) for figures in latest)
    std = max(figures.get("target_std", 1.0) for figures in latest)
    rank = max(figures.get("target_rank", math.inf) for figures in latest)
    if cosine > ALIKE_COSINE or std < ALIKE_STD or rank < FEW_DIRECTIONS:
        why = f"the targets are alike (cosine to their mean {cosine:.2f}, std {std:.2f}, rank {rank:.0f})"
        return Verdict("partial collapse suspected", why, _against_alike(history[-1]))
    stepped = [figures for figures in history[1:] if figures.get("lr", 0.0) > 0][-LATEST:]  # equal at first
    if len(stepped) == LATEST and all(figures.get("ema_distance", 1.0) == 0.0 for figures in stepped):
        why = "the target encoder is the context encoder (ema_distance 0), nothing holds the targets"
        return Verdict("partial collapse suspected", why, "raise model.momentum")
    return None


def _against_alike(now: Figures) -> str:
    """Return what to change, by what the objective logs: penalties, a moving average, or neither (pixels)."""
    if any(name.startswith("penalty_") for name in now):
        return "raise the weights of the objective's penalties or lower model.lr"
    if "ema_distance" in now:
        return "check that no gradient reaches the targets, lower model.lr or raise model.momentum"
    return "look at the data with `vjepa data check`, or lower model.lr"
