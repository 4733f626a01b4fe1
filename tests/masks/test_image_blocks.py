"""Masks of I-JEPA: the published ids exactly, and what each argument does."""

import pytest
import torch

from tests.reference import reference_case, reference_json
from vjepa.masks import ImageBlocks
from vjepa.types import TokenGrid

CASE = reference_case("masks_ijepa")
GRID = TokenGrid(1, 16, 16)


def sample(batch_size: int = 4, grid: TokenGrid = GRID, *, seed: int = 0, apart: bool = False, **arguments):
    strategy = ImageBlocks(**arguments)
    draw = strategy.sample_apart if apart else strategy.sample
    return draw(grid, batch_size, torch.Generator().manual_seed(seed))


def test_published_ids():
    about = CASE.about
    mask = ImageBlocks(last_place=False, surplus="tail")
    stream = torch.Generator().manual_seed(about["torch_manual_seed"])
    for iteration in range(about["iterations"]):
        sizes = mask.block_sizes(GRID, torch.Generator().manual_seed(iteration))
        seen, blocks = mask.place(GRID, sizes, about["batch"], stream)
        expected = CASE.tensors[f"out.it{iteration}.enc0"].long()
        assert torch.equal(mask.ids(seen, GRID, stream), expected)
        for number, block in enumerate(blocks.unbind(1)):
            expected = CASE.tensors[f"out.it{iteration}.pred{number}"].long()
            assert torch.equal(mask.ids(block, GRID, stream), expected)


@pytest.mark.parametrize("key", list(reference_json("ijepa_block_sizes.json")))
def test_published_block_sizes(key):
    pixels, patch = (int(part.removeprefix("ps")) for part in key.split("_"))
    grid = TokenGrid(1, pixels // patch, pixels // patch)
    for expected in reference_json("ijepa_block_sizes.json")[key]:
        sizes = ImageBlocks().block_sizes(grid, torch.Generator().manual_seed(expected["seed"]))
        assert [list(size) for size in sizes] == [expected["pred_hw"], expected["enc_hw"]]


def test_targets_apart_are_rows_of_their_own_with_the_context_of_their_image():
    pair = sample(3, apart=True)
    assert pair.context.shape[0] == pair.target.shape[0] == 12
    assert torch.equal(pair.context, pair.context[:3].repeat(4, 1))
    height, width = ImageBlocks().block_sizes(GRID, torch.Generator().manual_seed(0))[0]
    assert pair.target.shape[1] == height * width
    together = sample(1)
    union = sample(1, apart=True).target.unique()
    assert torch.equal(together.target[0], union)
    for context, target in zip(pair.context.tolist(), pair.target.tolist(), strict=True):
        assert not set(context) & set(target)


def test_number_and_size_of_the_targets():
    assert sample(3, num_targets=2, apart=True).target.shape[0] == 6
    assert sample(1, target_scale=(0.3, 0.3)).target.shape[1] > sample(1).target.shape[1]
    ids = sample(1, num_targets=1, aspect_ratio=(3.0, 3.0)).target
    assert len((ids // 16).unique()) > 2 * len((ids % 16).unique())


def test_context_scale():
    assert sample(1, context_scale=(0.4, 0.4)).context.shape[1] < sample(1).context.shape[1]


def test_the_last_row_and_column_are_out_of_reach_as_released():
    def reached(**arguments) -> torch.Tensor:
        return torch.cat([sample(8, seed=s, **arguments).target.flatten() for s in range(5)])

    assert (reached() // 16 == 15).any() and (reached() % 16 == 15).any()
    kept = reached(last_place=False)
    assert (kept // 16).max() == 14 and (kept % 16).max() == 14


def test_surplus_at_the_tail_keeps_the_first_ids():
    rows = [
        sample(8, seed=s, surplus=surplus).context.float().mean()
        for s in range(3)
        for surplus in ("tail", "random")
    ]
    assert all(tail < spread for tail, spread in zip(rows[::2], rows[1::2], strict=True))


def test_an_image_keeps_enough_to_see():
    crowded = {"num_targets": 8, "target_scale": (0.25, 0.25)}
    assert sample(64, min_keep=1, **crowded).context.shape[1] < 20
    assert sample(64, min_keep=20, **crowded).context.shape[1] >= 20


def test_blocks_that_leave_nothing_are_refused_and_the_advice_holds():
    impossible = {"num_targets": 60, "target_scale": (0.9, 0.9)}
    with pytest.raises(ValueError, match="Lower num_targets, target_scale or min_keep"):
        sample(**impossible)
    sample(target_scale=(0.2, 0.2))
    with pytest.raises(ValueError, match="smaller patches"):
        sample(grid=TokenGrid(1, 1, 4))
    sample(grid=TokenGrid(1, 2, 8))


@pytest.mark.parametrize(
    "arguments", [{"target_scale": (0.0, 0.1)}, {"context_scale": (0.5, 2.0)}, {"aspect_ratio": (2.0, 1.0)}]
)
def test_ranges_are_checked(arguments):
    with pytest.raises(ValueError, match="is a range 0 < low <= high"):
        ImageBlocks(**arguments)
    with pytest.raises(ValueError, match="at least 1"):
        ImageBlocks(num_targets=0)
