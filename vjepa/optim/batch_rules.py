"""What follows from the clips of an optimiser step, over all ranks and all batches accumulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vjepa.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class HalfLife:
    """A moving average that forgets half of what it holds after so many clips, whatever the batch.

    Args:
        samples: Clips after which a weight of long ago counts half.
    """

    samples: float

    def __post_init__(self) -> None:
        if not self.samples > 0:
            raise SettingError(f"samples is {self.samples}. Give a number of clips above 0, such as 1.0e6.")

    def momentum(self, clips_per_step: float | int) -> float:
        """Momentum of one update: two steps of half the clips forget as much as one of all.

        >>> HalfLife(samples=100.0).momentum(200.0)
        0.25
        """
        return float(0.5 ** (clips_per_step / self.samples))


@dataclass(frozen=True, kw_only=True)
class LrRule:
    """How the learning rate follows the clips of a step.

    Args:
        reference_batch: Clips of a step that the schedule is written for, over all ranks and accumulation.
        scaling: In proportion ("linear", arXiv 1706.02677), by the "sqrt" (often held better for Adam), or not.
    """

    reference_batch: int
    scaling: Literal["linear", "sqrt", "none"] = "sqrt"

    def __post_init__(self) -> None:
        if self.reference_batch < 1:
            raise SettingError(
                f"reference_batch is {self.reference_batch}. Give the clips of a step, at least 1."
            )

    def factor(self, clips_per_step: float | int) -> float:
        """What to multiply the schedule with.

        >>> LrRule(reference_batch=100).factor(400.0)
        2.0
        """
        exponent = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}[self.scaling]
        return float((clips_per_step / self.reference_batch) ** exponent)
