"""One line on how a run is: a pure function of a short history of its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Figures = dict[
    str, float
]  # of one step, by name: those of vjepa/training/health.py, `loss`, `lr`, `momentum`
Judgement = Literal["healthy", "partial collapse suspected", "diverging"]


@dataclass(frozen=True)
class Verdict:
    """A judgement, its reason and what to change; both are empty where a run is healthy."""

    judgement: Judgement = "healthy"
    why: str = ""
    change: str = ""

    def __str__(self) -> str:
        return f"{self.judgement}: {self.why}, {self.change}" if self.why else self.judgement


def verdict(history: Sequence[Figures]) -> Verdict:
    return Verdict()
