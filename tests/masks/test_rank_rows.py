"""The masks of a batch of all ranks, dealt out."""

import pytest
import torch

from vjepa.masks import ImageBlocks, TubeBlocks
from vjepa.masks.rank_rows import RankRows
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


def test_targets_apart_are_dealt_out_each():
    whole = ImageBlocks(num_targets=3).sample_apart(GRID, 4, torch.Generator().manual_seed(4))
    for rank in range(2):
        rows = RankRows(strategy=ImageBlocks(num_targets=3), rank=rank, world_size=2)
        part = rows.sample_apart(GRID, 2, torch.Generator().manual_seed(4))
        mine = [4 * target + clip for target in range(3) for clip in (rank, rank + 2)]
        assert torch.equal(part.context, whole.context[mine])
        assert torch.equal(part.target, whole.target[mine])


def test_time_is_as_uniform_as_it_was():
    for surplus in ("random", "tail"):
        blocks = TubeBlocks(surplus=surplus)
        assert RankRows(strategy=blocks, rank=0, world_size=2).uniform_in_time == blocks.uniform_in_time


def test_a_rank_is_one_of_them():
    with pytest.raises(ValueError, match=r"Give one of 0\.\.1"):
        RankRows(strategy=TubeBlocks(), rank=2, world_size=2)
    RankRows(strategy=TubeBlocks(), rank=1, world_size=2)
