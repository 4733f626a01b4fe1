"""What holds for every mask strategy that `vjepa.masks` exports, with its default arguments."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vjepa.masks
from vjepa.masks import MaskStrategy, TubeBlocks
from vjepa.types import TokenGrid

EXPORTED = [getattr(vjepa.masks, name) for name in vjepa.masks.__all__]
STRATEGIES = [c for c in EXPORTED if issubclass(c, MaskStrategy) and not inspect.isabstract(c)]
GRIDS = st.builds(TokenGrid, t=st.integers(2, 8), h=st.integers(3, 12), w=st.integers(3, 12))
EVEN = 0.25
TOLERANCE = 0.02


def draw(strategy: MaskStrategy, grid: TokenGrid, batch_size: int, seed: int):
    return strategy.sample(grid, batch_size, torch.Generator().manual_seed(seed))


def quarters(ids: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """Share of the ids in each quarter of the clip."""
    moments = ids.flatten() // (grid.h * grid.w) * 4 // grid.t
    return moments.bincount(minlength=4) / moments.numel()


def test_all_strategies_are_found():
    assert len(STRATEGIES) >= 3


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(grid=GRIDS, batch_size=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_parts_are_disjoint_ascending_in_range_and_not_empty(strategy, grid, batch_size, seed):
    pair = draw(strategy(), grid, batch_size, seed)
    for ids in (pair.context, pair.target):
        assert ids.dtype == torch.int64 and ids.shape[0] == batch_size and ids.shape[1] > 0
        assert 0 <= ids.min() and ids.max() < len(grid)
        assert (ids.diff(dim=1) > 0).all()
    for context, target in zip(pair.context.tolist(), pair.target.tolist(), strict=True):
        assert not set(context) & set(target)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(grid=GRIDS, seed=st.integers(0, 2**31))
def test_the_generator_decides_alone(strategy, grid, seed):
    first = draw(strategy(), grid, 3, seed)
    torch.rand(5)  # the global stream plays no part
    again = draw(strategy(), grid, 3, seed)
    assert torch.equal(first.context, again.context) and torch.equal(first.target, again.target)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_other_seeds_give_other_masks(strategy):
    drawn = {tuple(draw(strategy(), TokenGrid(8, 14, 14), 2, s).context.flatten().tolist()) for s in range(8)}
    assert len(drawn) > 1


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batch_size", [1, 24])
def test_time_is_seen_evenly_unless_declared(strategy, batch_size):
    mask, grid = strategy(), TokenGrid(8, 14, 14)
    context = torch.stack([quarters(draw(mask, grid, batch_size, s).context, grid) for s in range(8)]).mean(0)
    uneven = (context - EVEN).abs().max().item()
    assert (uneven < TOLERANCE) == mask.uniform_in_time, context


@pytest.mark.parametrize("arguments", [{"num_blocks": 8}, {"num_blocks": 2, "spatial_scale": (0.7, 0.7)}])
def test_surplus_cut_at_the_tail_favours_the_early_clip(arguments):
    grid = TokenGrid(8, 14, 14)
    cut = {
        surplus: quarters(draw(TubeBlocks(**arguments, surplus=surplus), grid, 24, 0).context, grid)
        for surplus in ("tail", "random")
    }
    assert cut["tail"][0] > cut["random"][0] + 0.05 and cut["tail"][3] < cut["random"][3] - 0.05
    assert (cut["random"] - EVEN).abs().max() < 0.05
    assert not TubeBlocks(surplus="tail").uniform_in_time
    assert not TubeBlocks(temporal_scale=(0.5, 1.0)).uniform_in_time
