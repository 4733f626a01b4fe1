"""Random tubes and causal masks."""

import numpy as np
import pytest
import torch

from tests.reference import reference_case
from vjepa.masks import Causal, RandomTubes
from vjepa.masks.random_tubes import tubes_of
from vjepa.types import TokenGrid

GRID = TokenGrid(8, 14, 14)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_published_tubes():
    case = reference_case("masks_multiblock3d_v1")
    shuffle = np.random.RandomState(case.about["np_seed_for_tube"])
    visible = np.repeat([0, 1], [45, 4])  # ratio 0.9 of 49 sites
    rows = []
    for _ in range(2):
        shuffle.shuffle(row := visible.copy())
        rows.append(row == 0)
    pair = tubes_of(torch.from_numpy(np.stack(rows)), TokenGrid(4, 7, 7))
    assert torch.equal(pair.context, case.tensors["out.tube.enc"].long())
    assert torch.equal(pair.target, case.tensors["out.tube.pred"].long())


@pytest.mark.parametrize(("ratio", "visible"), [(0.9, 19), (0.5, 98), (0.999, 1), (0.001, 195)])
def test_tubes_run_through_all_of_the_clip(ratio, visible):
    pair = RandomTubes(ratio=ratio).sample(GRID, 3, generator())
    assert pair.context.shape == (3, 8 * visible)
    sites = pair.context.reshape(3, 8, visible) % 196
    assert (sites == sites[:, :1]).all()
    assert visible in (1, 195) or (sites[0] != sites[1]).any()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_ratio_is_checked(ratio):
    with pytest.raises(ValueError, match="between 0 and 1"):
        RandomTubes(ratio=ratio)


def test_tubes_need_two_sites_and_the_advice_holds():
    with pytest.raises(ValueError, match="Use larger clips"):
        RandomTubes().sample(TokenGrid(8, 1, 1), 2, generator())
    RandomTubes().sample(TokenGrid(8, 1, 2), 2, generator())


def test_causal_masks_cut_the_clip_once():
    cuts = set()
    for seed in range(30):
        pair = Causal().sample(GRID, 2, generator(seed))
        assert pair.context.max() + 1 == pair.target.min()
        assert pair.context.shape[1] % 196 == 0 and pair.context.shape[1] + pair.target.shape[1] == len(GRID)
        cuts.add(pair.context.shape[1] // 196)
    assert cuts == {2, 3, 4, 5, 6}


def test_past_sets_the_cut():
    pair = Causal(past=(0.5, 0.5)).sample(GRID, 1, generator())
    assert pair.context.shape[1] == 4 * 196


@pytest.mark.parametrize("past", [(0.0, 0.5), (0.6, 0.5), (0.5, 1.0)])
def test_past_is_checked(past):
    with pytest.raises(ValueError, match="0 < low <= high < 1"):
        Causal(past=past)


def test_causal_masks_need_two_tubelets_and_the_advice_holds():
    with pytest.raises(ValueError, match="Use longer clips"):
        Causal().sample(TokenGrid(1, 4, 4), 1, generator())
    Causal().sample(TokenGrid(2, 4, 4), 1, generator())
