"""The masks of a batch of all ranks, dealt out."""

import pytest
import torch

from vjepa.masks import ImageBlocks, RankRows, TubeBlocks
from vjepa.types import TokenGrid

GRID = TokenGrid(t=2, h=6, w=6)


def drawn(strategy, rows):
    return strategy.sample(GRID, rows, torch.Generator().manual_seed(4))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_hold_the_rows_that_one_rank_draws(world_size):
    blocks = TubeBlocks(num_blocks=3)
    whole = drawn(blocks, 8)
    for rank in range(world_size):
        part = drawn(RankRows(strategy=blocks, rank=rank, world_size=world_size), 8 // world_size)
        assert torch.equal(part.context, whole.context[rank::world_size])
        assert torch.equal(part.target, whole.target[rank::world_size])


def test_ranks_hold_the_targets_that_one_rank_draws_apart():
    grid, draw = TokenGrid(t=1, h=8, w=8), lambda: torch.Generator().manual_seed(4)
    images = ImageBlocks(num_targets=2, min_keep=1)
    whole = images.sample_apart(grid, 4, draw())
    part = RankRows(strategy=images, rank=1, world_size=2).sample_apart(grid, 2, draw())
    assert torch.equal(part.target, whole.target[[1, 3, 5, 7]])  # two clips, target by target
    assert torch.equal(part.context, whole.context[[1, 3, 5, 7]])


def test_time_is_as_uniform_as_it_was():
    for surplus in ("random", "tail"):
        blocks = TubeBlocks(surplus=surplus)
        assert RankRows(strategy=blocks, rank=0, world_size=2).uniform_in_time == blocks.uniform_in_time


def test_a_rank_is_one_of_them():
    with pytest.raises(ValueError, match=r"Give one of 0\.\.1"):
        RankRows(strategy=TubeBlocks(), rank=2, world_size=2)
    RankRows(strategy=TubeBlocks(), rank=1, world_size=2)
