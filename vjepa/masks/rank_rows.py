"""Masks drawn for the global batch, from which each rank takes the rows of its own clips."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.masks.base import MaskStrategy, checked
from vjepa.types import MaskPair, TokenGrid


class RankRows(MaskStrategy):
    """Strategy that draws the masks of all ranks and keeps the rows of one rank, every `world_size`-th row.

    The generator must be in the same state on every rank, and all have the same number of clips. Then the ids of a
    clip and their number do not depend on the number of ranks, and no rank waits for another with longer sequences.
    """

    def __init__(self, *, strategy: MaskStrategy, rank: int, world_size: int) -> None:
        if not 0 <= rank < world_size:
            raise SettingError(f"rank is {rank} of {world_size}. Give one of 0..{world_size - 1}.")
        self.strategy, self.rank, self.world_size = strategy, rank, world_size

    @property
    def uniform_in_time(self) -> bool:
        """Same as for `strategy`."""
        return self.strategy.uniform_in_time

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """See `MaskStrategy.sample`."""
        whole = self.strategy.sample(grid, batch_size * self.world_size, generator)
        return self._own(checked(whole, self.strategy, grid), batch_size)

    def sample_apart(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """See `MaskStrategy.sample_apart`."""
        whole = self.strategy.sample_apart(grid, batch_size * self.world_size, generator)
        return self._own(checked(whole, self.strategy, grid), batch_size)

    def _own(self, whole: MaskPair, batch_size: int) -> MaskPair:
        return MaskPair(
            context=self._rows(whole.context, batch_size), target=self._rows(whole.target, batch_size)
        )

    def _rows(self, ids: Int[Tensor, "rows n"], batch_size: int) -> Int[Tensor, "mine n"]:
        """Return this rank's rows; with several targets per clip, the rows of one target are consecutive."""
        parts = rearrange(ids, "(m b r) n -> m b r n", b=batch_size, r=self.world_size)
        return rearrange(parts[:, :, self.rank], "m b n -> (m b) n")
