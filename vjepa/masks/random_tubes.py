"""Random tubes: sites of a frame hidden through all of the clip (the ablation of V-JEPA; VideoMAE's masks)."""

from __future__ import annotations

import torch
from einops import repeat
from jaxtyping import Bool
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.masks.base import MaskStrategy, pair_from_hidden
from vjepa.types import MaskPair, TokenGrid


class RandomTubes(MaskStrategy):
    """Hides a random share of the sites of a frame, the same sites at every time.

    Args:
        ratio: Share of the sites that is hidden; at least one site stays hidden and one visible.
    """

    def __init__(self, *, ratio: float = 0.9) -> None:
        if not 0 < ratio < 1:
            raise SettingError(f"ratio is the hidden share, between 0 and 1, got {ratio}.")
        self.ratio = ratio

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw hidden sites for each clip."""
        sites = grid.h * grid.w
        if sites < 2:
            raise SettingError(f"random tubes need at least 2 sites a frame, got {sites}. Use larger clips.")
        num_visible = min(max(int(sites * (1 - self.ratio)), 1), sites - 1)
        order = torch.rand(batch_size, sites, generator=generator).argsort(dim=1)
        hidden = torch.ones(batch_size, sites, dtype=torch.bool).scatter_(1, order[:, :num_visible], False)
        return tubes_of(hidden, grid)


def tubes_of(hidden: Bool[Tensor, "b s"], grid: TokenGrid) -> MaskPair:
    """Ids of tubes through hidden sites (True = hidden), S = h * w; every row hides the same number."""
    cube = repeat(hidden, "b (h w) -> b t h w", t=grid.t, h=grid.h)
    return pair_from_hidden(cube, surplus="tail", generator=torch.Generator())
