"""What a mask strategy is, and the one way from hidden tokens to rectangular ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from vjepa.types import MaskPair, TokenGrid

Surplus = Literal["random", "tail"]


class MaskStrategy(ABC):
    """Chooses, for a batch of clips, which tokens are seen and which are to be predicted."""

    @property
    def uniform_in_time(self) -> bool:
        """Whether, over many draws, all moments of a clip are seen equally often; one that is not says so."""
        return True

    @abstractmethod
    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw one `MaskPair` of ids in `grid`; all rows have the same two lengths.

        Args:
            grid: Extent of the clips in tokens.
            batch_size: Number of rows to draw.
            generator: Source of all randomness: the same state gives the same masks.
        """

    def sample_apart(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """As `sample`, for objectives that can predict several targets of a clip without seeing one from another.

        A strategy that has such targets gives `batch_size` rows for each of them, target by target, each with
        the same context (`vjepa.layers.cross_masks`); of others it is `sample`.
        """
        return self.sample(grid, batch_size, generator)


def take_ids(
    chosen: Bool[Tensor, "b n"], count: int, surplus: Surplus, generator: torch.Generator
) -> Int[Tensor, "b {count}"]:
    """Ids of `count` chosen tokens a row, ascending.

    Args:
        chosen: Which tokens may be taken (B, N); at least `count` in each row.
        count: Ids a row, at least 1.
        surplus: What is dropped where a row has more: a "random" part, or the "tail", the highest ids, which
            are the latest frames (as released; it ties the task to the batch size).
        generator: Used by "random" only.
    """
    kept, extra = chosen, bool((chosen.sum(1) > count).any())
    if extra and surplus == "tail":
        kept = chosen & (chosen.cumsum(1) <= count)
    elif extra:
        # those with the `count` smallest numbers; of equal ones at the limit the first
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
    """Context ids of what is visible and target ids of what is hidden, cut to the smallest row of the batch.

    Args:
        hidden: True = hidden (B, t, h, w); each row hides some tokens and shows some.
        surplus: See `take_ids`.
        generator: See `take_ids`.
        max_keep: Most context ids a row; None for no limit.
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
    """All ids below `num_tokens` that a row of `ids` does not have, ascending."""
    absent = torch.ones(len(ids), num_tokens, dtype=torch.bool).scatter_(1, ids, False)
    return rearrange(absent.nonzero()[:, 1], "(b rest) -> b rest", b=len(ids))
