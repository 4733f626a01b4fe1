"""The interface of mask strategies, and the conversion of hidden tokens to ids of equal length per row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.types import MaskPair, TokenGrid

Surplus = Literal["random", "tail"]


class MaskStrategy(ABC):
    """Interface of a strategy that draws which tokens are visible and which are predicted, for a batch of clips."""

    @property
    def uniform_in_time(self) -> bool:
        """Whether all tubelets are visible equally often over many draws; a subclass overrides this if not."""
        return True

    @abstractmethod
    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw one `MaskPair` of ids in `grid`; all rows have equally many context ids, and equally many target ids.

        All randomness comes from `generator`: the same state gives the same masks.
        """

    def sample_apart(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw as `sample` does, for objectives that predict several targets of a clip independently.

        A strategy with several targets returns `batch_size` rows per target, in the row order of
        `vjepa.layers.cross_masks`: all clips for the first target, then all for the second. The rows of a clip share
        its context. Other strategies return `sample`.
        """
        return self.sample(grid, batch_size, generator)


def checked(pair: MaskPair, strategy: MaskStrategy, grid: TokenGrid) -> MaskPair:
    """Return a pair that a strategy drew.

    Raises:
        SettingError: If it leaves no context or no target.
    """
    for part, ids in (("context", pair.context), ("target", pair.target)):
        if not ids.numel():
            raise SettingError(
                f"the mask strategy {type(strategy).__name__} leaves no {part} on a grid (t, h, w) of ({grid.t}, "
                f"{grid.h}, {grid.w}). Change its settings, or give larger or longer clips or a smaller patch_size or "
                "tubelet_size."
            )
    return pair


def take_ids(
    chosen: Bool[Tensor, "b n"], count: int, surplus: Surplus, generator: torch.Generator
) -> Int[Tensor, "b {count}"]:
    """Return the ids of `count` chosen tokens per row, in ascending order; each row has as many, or more.

    `surplus` tells which excess tokens to drop: a "random" part, or the "tail", the highest ids. The tail is
    the latest frames, as in the released code. With it the task depends on the batch size, because rows are
    cut to the smallest row of the batch.
    """
    kept, extra = chosen, bool((chosen.sum(1) > count).any())
    if extra and surplus == "tail":
        kept = chosen & (chosen.cumsum(1) <= count)
    elif extra:
        # keep the tokens with the `count` smallest numbers; of equal numbers at the limit keep the first
        draws = torch.rand(chosen.shape, generator=generator).masked_fill(~chosen, 2.0)
        # numpy's selection takes a fraction of the time of torch.kthvalue
        limit = torch.from_numpy(np.partition(draws.numpy(), count - 1)[:, count - 1 : count])
        kept = draws <= limit
        if int(kept.sum()) > count * len(kept):
            below, at_limit = draws < limit, draws == limit
            kept = below | (at_limit & (at_limit.cumsum(1) <= count - below.sum(1, keepdim=True)))
    return rearrange(kept.nonzero()[:, 1], "(b k) -> b k", b=len(chosen))


def pair_from_hidden(
    hidden: Bool[Tensor, "b t h w"],
    *,
    surplus: Surplus,
    generator: torch.Generator,
    max_keep: int | None = None,
) -> MaskPair:
    """Return context ids of the visible tokens and target ids of the hidden ones, cut to the batch's smallest row.

    Every row of `hidden` (True = hidden) has hidden and visible tokens. A row keeps at most `max_keep` context ids.
    """
    flat = rearrange(hidden, "b t h w -> b (t h w)")
    num_target = int(flat.sum(1).min())
    num_context = int((~flat).sum(1).min())
    if max_keep is not None:
        num_context = min(num_context, max_keep)
    return MaskPair(
        context=take_ids(~flat, num_context, surplus, generator),
        target=take_ids(flat, num_target, surplus, generator),
    )


def complement(ids: Int[Tensor, "b k"], num_tokens: int) -> Int[Tensor, "b rest"]:
    """Return the ids below `num_tokens` that are absent from each row of `ids`, in ascending order."""
    absent = torch.ones(len(ids), num_tokens, dtype=torch.bool).scatter_(1, ids, False)
    return rearrange(absent.nonzero()[:, 1], "(b rest) -> b rest", b=len(ids))
