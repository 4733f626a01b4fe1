"""Positions: the published tables to the bit, rotations to their tolerance, and what they are for."""

import pytest
import torch
from einops import rearrange

from tests.reference import reference_case
from vjepa.layers import rotary_3d, rotate, sincos_2d, sincos_3d
from vjepa.layers.position import rotary_angles, sincos_1d, tables_of_angles, token_coordinates
from vjepa.types import TokenGrid

TABLES = reference_case("sincos_tables")
ROTATIONS = reference_case("rope_rotation")


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize(("width", "side", "depth"), [(48, 4, 4), (64, 3, 2)])
def test_3d_table(width, side, depth, uniform):
    table = sincos_3d(TokenGrid(depth, side, side), width, uniform_power=uniform)
    TABLES.assert_close(table, f"out.3d_D{width}_G{side}_T{depth}_uniform{int(uniform)}")


@pytest.mark.parametrize(("width", "side"), [(48, 4), (64, 3)])
@pytest.mark.parametrize(("order", "name"), [("hw", "vjepa"), ("wh", "ijepa")])
def test_2d_table(width, side, order, name):
    table = sincos_2d(TokenGrid(1, side, side), width, order=order)
    TABLES.assert_close(table, f"out.2d_{name}_D{width}_G{side}")


@pytest.mark.parametrize(("width", "length"), [(48, 12), (64, 9)])
def test_1d_table(width, length):
    TABLES.assert_close(sincos_1d(torch.arange(length).double(), width), f"out.1d_D{width}_N{length}")


@pytest.mark.parametrize("width", [10, 20])
@pytest.mark.parametrize(("style", "name"), [("tiled", "vjepa2"), ("interleaved", "interleaved")])
def test_rotation(width, style, name):
    query, positions = (ROTATIONS.tensors[f"in.{k}_d{width}"] for k in ("q", "pos"))
    angles = rotary_angles(rearrange(positions, "b heads n -> (b heads) 1 n"), width, style)
    turned = rotate(rearrange(query, "b heads n d -> (b heads) 1 n d"), tables_of_angles(angles))
    ROTATIONS.assert_close(
        rearrange(turned, "(b heads) 1 n d -> b heads n d", b=len(query)), f"out.{name}_d{width}"
    )


def test_coordinates_count_time_slowest():
    t, h, w = token_coordinates(torch.tensor([0, 1, 3, 12 + 4]), TokenGrid(2, 4, 3))
    assert (t.tolist(), h.tolist(), w.tolist()) == ([0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1])


def test_true_rotations_keep_lengths_and_see_only_distances():
    grid, generator = TokenGrid(4, 4, 4), torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 20, generator=generator)

    def score(a: int, b: int) -> float:
        turned = [
            rotate(x, rotary_3d(torch.tensor([[i]]), grid, 20, "interleaved"))
            for x, i in ((query, a), (key, b))
        ]
        assert torch.allclose(turned[0].norm(), query.norm())
        return (turned[0] * turned[1]).sum().item()

    assert score(0, 21) == pytest.approx(score(21, 42), abs=1e-5)  # (1, 1, 1) apart, twice
    assert abs(score(0, 21) - score(0, 42)) > 1e-2


@pytest.mark.parametrize("side", [5, 16])
def test_stretched_grids_end_where_the_one_of_pre_training_does(side):
    small, large = TokenGrid(2, 4, 3), TokenGrid(2, side, side)
    corner = 12 + 3 * 3 + 2, side**2 + side**2 - 1  # last token of either grid: the same place in time
    stretched = rotary_3d(torch.tensor([[corner[0]]]), small, 20, "interleaved", side=side)
    native = rotary_3d(torch.tensor([[corner[1]]]), large, 20, "interleaved")
    torch.testing.assert_close(stretched.cos, native.cos, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(stretched.cos, rotary_3d(torch.tensor([[corner[0]]]), small, 20).cos)
    rotary_3d(torch.tensor([[0]]), TokenGrid(1, 1, 1), 20, "interleaved", side=side)  # nothing to stretch


def test_heads_of_an_odd_width_turn_too():
    x = torch.randn(1, 1, 1, 21, generator=torch.Generator().manual_seed(0))
    odd, even = (rotate(x[..., :n], rotary_3d(torch.tensor([[5]]), TokenGrid(2, 2, 2), n)) for n in (21, 20))
    torch.testing.assert_close(odd, torch.cat([even, x[..., 20:]], dim=-1))


def test_rest_of_a_head_is_left_alone():
    tables = rotary_3d(torch.tensor([[5]]), TokenGrid(2, 2, 2), 32)  # 3 x 10 channels turn, 2 rest
    x = torch.ones(1, 1, 1, 32)
    turned = rotate(x, tables)
    assert torch.equal(turned[..., 30:], x[..., 30:]) and not torch.equal(turned[..., :30], x[..., :30])


def test_half_precision_keeps_fp32_angles():
    ids, grid = torch.tensor([[63 * 4]]), TokenGrid(64, 2, 2)
    x = torch.randn(1, 2, 1, 64, generator=torch.Generator().manual_seed(0))
    tables = rotary_3d(ids, grid, 64)
    half = rotate(x.bfloat16(), tables)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), rotate(x.bfloat16().float(), tables), atol=0.016, rtol=0.008)


def test_heads_too_narrow_are_refused_and_the_advice_holds():
    grid, ids = TokenGrid(1, 2, 2), torch.arange(4)[None]
    with pytest.raises(ValueError, match="Use fewer heads or more width"):
        rotary_3d(ids, grid, 4)
    rotary_3d(ids, grid, 8)
