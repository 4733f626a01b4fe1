"""Causal masks: the past is visible and the future is predicted."""

from __future__ import annotations

import torch

from vjepa.errors import SettingError
from vjepa.masks.base import MaskStrategy, pair_from_hidden
from vjepa.types import MaskPair, TokenGrid


class Causal(MaskStrategy):
    """Strategy that shows the first tubelets of a clip and hides the rest; it draws one cut per batch.

    Args:
        past: Range of the visible share of the clip's length; at least one tubelet is visible and one hidden.
    """

    def __init__(self, *, past: tuple[float, float] = (0.25, 0.75)) -> None:
        low, high = past
        if not 0 < low <= high < 1:
            raise SettingError(f"past is a range 0 < low <= high < 1, got ({low}, {high}).")
        self.past = past

    @property
    def uniform_in_time(self) -> bool:
        """False: only the past is visible."""
        return False

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw one cut for all clips of the batch."""
        if grid.t < 2:
            raise SettingError(f"a causal mask needs at least 2 tubelets, got {grid.t}. Use longer clips.")
        low, high = self.past
        share = low + (high - low) * float(torch.rand((), generator=generator))
        cut = min(max(round(grid.t * share), 1), grid.t - 1)
        hidden = torch.zeros(batch_size, grid.t, grid.h, grid.w, dtype=torch.bool)
        hidden[:, cut:] = True
        return pair_from_hidden(hidden, surplus="tail", generator=generator)
