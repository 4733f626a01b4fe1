"""Multi-block masks: the published ids exactly, and what each argument does."""

import pytest
import torch

from tests.reference import reference_case, reference_json
from vjepa.masks import TubeBlocks
from vjepa.types import TokenGrid

GRID = TokenGrid(8, 14, 14)
V1, V2 = reference_case("masks_multiblock3d_v1"), reference_case("masks_multiseq_v2")
PARTS = {"full_complement": {"complement": "target"}, "pred_full_complement": {"complement": "context"},
         "inv_block": {"invert": True}}  # fmt: skip
NAMES = {"num_blocks", "spatial_scale", "temporal_scale", "aspect_ratio", "max_temporal_keep", "max_keep"}


def strategy(group: dict) -> TubeBlocks:
    """The strategy of a published mask group."""
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in group.items() if k in NAMES}
    for key, argument in PARTS.items():
        arguments |= argument if group.get(key) else {}
    return TubeBlocks(**arguments, surplus="tail")


def assert_published(case, steps):
    """Draw as the reference does: sizes by a private generator, places by one stream for all."""
    stream = torch.Generator().manual_seed(case.about["torch_manual_seed"])
    for iteration, prefix, group, grid, rows in steps:
        mask = strategy(case.about["mask_cfgs"][group])
        size = mask.block_size(grid, torch.Generator().manual_seed(iteration))
        pair = mask.place(grid, size, rows, stream)
        for ids, name in ((pair.context, "enc"), (pair.target, "pred")):
            assert torch.equal(ids, case.tensors[f"out.it{iteration}.{prefix}{name}{group}"].long())


def test_published_ids_of_vjepa_1():
    groups = range(len(V1.about["mask_cfgs"]))
    assert_published(V1, [(it, "", group, TokenGrid(4, 7, 7), 3) for it in range(2) for group in groups])


def test_published_ids_of_vjepa_2():
    groups = range(len(V2.about["mask_cfgs"]))
    lengths = [(0, TokenGrid(4, 7, 7), 3), (1, TokenGrid(2, 7, 7), 1)]
    assert_published(
        V2, [(it, f"fpc{i}.", g, grid, n) for it in range(2) for i, grid, n in lengths for g in groups]
    )


@pytest.mark.parametrize(("pixels", "side"), [(224, 14), (256, 16)])
@pytest.mark.parametrize(("group", "num_blocks", "scale"), [(0, 8, 0.15), (1, 2, 0.7)])
def test_published_block_sizes(pixels, side, group, num_blocks, scale):
    expected = reference_json("mask_block_sizes.json")[f"block_size_{pixels}_16f_group{group}"]
    mask = TubeBlocks(num_blocks=num_blocks, spatial_scale=(scale, scale))
    sizes = [
        mask.block_size(TokenGrid(8, side, side), torch.Generator().manual_seed(s)) for s in expected["seeds"]
    ]
    assert [list(size) for size in sizes] == expected["thw"]


def sample(batch_size: int = 4, grid: TokenGrid = GRID, **arguments):
    return TubeBlocks(**arguments).sample(grid, batch_size, torch.Generator().manual_seed(0))


def test_more_and_larger_blocks_hide_more():
    assert sample(1, num_blocks=8).target.shape[1] > sample(1, num_blocks=1).target.shape[1]
    assert sample(1, spatial_scale=(0.5, 0.5)).target.shape[1] > sample(1).target.shape[1]


def test_blocks_of_a_part_of_the_time():
    hidden = sample(1, num_blocks=1, temporal_scale=(0.25, 0.25)).target // (14 * 14)
    assert len(hidden.unique()) == 2


def test_aspect_ratio_is_height_over_width():
    ids = sample(1, num_blocks=1, aspect_ratio=(4.0, 4.0)).target
    rows, columns = ids % 196 // 14, ids % 14
    assert len(rows.unique()) > 2 * len(columns.unique())


def test_time_beyond_max_temporal_keep_is_hidden():
    pair = sample(max_temporal_keep=0.5)
    assert pair.context.max() < 4 * 196
    assert (pair.target >= 4 * 196).any()


def test_max_keep_limits_the_context():
    assert sample(max_keep=50).context.shape[1] == 50


@pytest.mark.parametrize("complement", ["target", "context"])
def test_complement_loses_no_token(complement):
    pair = sample(8, complement=complement)
    assert pair.context.shape[1] + pair.target.shape[1] == len(GRID)
    lost = sample(8)
    assert lost.context.shape[1] + lost.target.shape[1] < len(GRID)


def test_invert_swaps_the_parts():
    plain, inverted = sample(), sample(invert=True)
    assert torch.equal(plain.context, inverted.target) and torch.equal(plain.target, inverted.context)


def test_tail_surplus_drops_the_latest_and_random_surplus_anywhere():
    tail, random = sample(24, surplus="tail"), sample(24, surplus="random")
    assert tail.context.shape == random.context.shape
    assert tail.context.double().mean() < random.context.double().mean() - 50


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"spatial_scale": (0.5, 0.2)}, r"spatial_scale is a range 0 < low <= high <= 1.0, got \(0.5, 0.2\)"),
        ({"temporal_scale": (0.5, 1.2)}, "temporal_scale is a range"),
        ({"aspect_ratio": (0.0, 1.0)}, "aspect_ratio is a range"),
        ({"num_blocks": 0}, "at least 1, got 0"),
    ],
)
def test_arguments_are_checked(arguments, advice):
    with pytest.raises(ValueError, match=advice):
        TubeBlocks(**arguments)


def test_blocks_that_hide_everything_are_refused_and_the_advice_holds():
    whole = {"num_blocks": 1, "spatial_scale": (1.0, 1.0), "aspect_ratio": (1.0, 1.0)}
    with pytest.raises(ValueError, match="Lower spatial_scale or temporal_scale"):
        sample(**whole)
    assert sample(**{**whole, "spatial_scale": (0.5, 0.5)}).context.shape[1] > 0
    assert sample(**whole, temporal_scale=(0.5, 0.5)).context.shape[1] > 0
