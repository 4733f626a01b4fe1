"""Rules that depend on the clips per optimiser step: over all ranks and all accumulated batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vjepa.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class HalfLife:
    """Half-life of a moving average in clips, independent of the batch size.

    Args:
        samples: Number of clips after which a past value has half its weight.
    """

    samples: float

    def __post_init__(self) -> None:
        if not self.samples > 0:
            raise SettingError(f"samples is {self.samples}. Give a number of clips above 0, such as 1.0e6.")

    def momentum(self, clips_per_step: float | int) -> float:
        """Return the momentum of one update; two steps of n clips forget as much as one step of 2n clips.

        >>> HalfLife(samples=100.0).momentum(200.0)
        0.25
        """
        return float(0.5 ** (clips_per_step / self.samples))


@dataclass(frozen=True, kw_only=True)
class LrRule:
    """Scaling rule of the learning rate with the clips per step.

    Args:
        reference_batch: Clips per step that the schedule is written for, over all ranks and accumulated batches.
        scaling: "linear" (arXiv 1706.02677), "sqrt" (often recommended for Adam), or "none".
    """

    reference_batch: int
    scaling: Literal["linear", "sqrt", "none"] = "sqrt"

    def __post_init__(self) -> None:
        if self.reference_batch < 1:
            raise SettingError(
                f"reference_batch is {self.reference_batch}. Give the clips per step, at least 1."
            )

    def factor(self, clips_per_step: float | int) -> float:
        """Return the factor by which to multiply the schedule.

        >>> LrRule(reference_batch=100).factor(400.0)
        2.0
        """
        exponent = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}[self.scaling]
        return float((clips_per_step / self.reference_batch) ** exponent)
