"""Random tubes: sites of the frame that are hidden in the whole clip (VideoMAE's masks; V-JEPA's ablation)."""

from __future__ import annotations

import torch
from einops import repeat
from jaxtyping import Bool
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.masks.base import MaskStrategy, pair_from_hidden
from vjepa.types import MaskPair, TokenGrid


class RandomTubes(MaskStrategy):
    """Strategy that hides a random share of the sites of the frame, the same sites at every time step.

    Args:
        ratio: Share of hidden sites; at least one site is hidden and one visible.
    """

    def __init__(self, *, ratio: float = 0.9) -> None:
        if not 0 < ratio < 1:
            raise SettingError(f"ratio is the share of hidden sites, between 0 and 1, got {ratio}.")
        self.ratio = ratio

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw the hidden sites of each clip."""
        sites = grid.h * grid.w
        if sites < 2:
            raise SettingError(
                f"random tubes need at least 2 sites per frame, got {sites}. Use larger clips."
            )
        num_visible = min(max(int(sites * (1 - self.ratio)), 1), sites - 1)
        order = torch.rand(batch_size, sites, generator=generator).argsort(dim=1)
        hidden = torch.ones(batch_size, sites, dtype=torch.bool).scatter_(1, order[:, :num_visible], False)
        return tubes_of(hidden, grid)


def tubes_of(hidden: Bool[Tensor, "b s"], grid: TokenGrid) -> MaskPair:
    """Return the ids of tubes through hidden sites (B, h * w), True = hidden; every row hides equally many."""
    cube = repeat(hidden, "b (h w) -> b t h w", t=grid.t, h=grid.h)
    return pair_from_hidden(cube, surplus="tail", generator=torch.Generator())
