"""Rotary positions by stored frequencies, channel by channel, for heads whose third is odd too."""

import math

import pytest
import torch
from torch import nn

from vjepa.layers import Block, rotary_3d, rotate, store_frequencies, stored_tables
from vjepa.types import TokenGrid

GRID = TokenGrid(2, 3, 4)
IDS = torch.tensor([[0, 5, 23, 11]])


def blocks_of(head_dim: int, depth: int = 1) -> nn.ModuleList:
    blocks = nn.ModuleList(Block(embed_dim=2 * head_dim, num_heads=2) for _ in range(depth))
    store_frequencies(blocks, head_dim)
    return blocks


@pytest.mark.parametrize("head_dim", [6, 18, 20, 21, 22, 23])
def test_each_pair_of_an_axis_turns_by_its_place(head_dim):
    x = torch.randn(1, 1, 4, head_dim, generator=torch.Generator().manual_seed(0))
    expected, width = x.clone(), head_dim // 3
    for row, token in enumerate(IDS[0].tolist()):
        place = (token // 12, token % 12 // 4, token % 4)
        for axis in range(3):
            for pair in range(width // 2):
                one = axis * width + 2 * pair
                angle = place[axis] * 10000 ** (-2 * pair / width)
                a, b = x[0, 0, row, one].item(), x[0, 0, row, one + 1].item()
                expected[0, 0, row, one] = a * math.cos(angle) - b * math.sin(angle)
                expected[0, 0, row, one + 1] = b * math.cos(angle) + a * math.sin(angle)
    (tables,) = stored_tables(blocks_of(head_dim), IDS, GRID, head_dim)
    torch.testing.assert_close(rotate(x, tables), expected, atol=1e-6, rtol=1e-5)


def test_even_thirds_turn_like_interleaved_angles():
    (stored,) = stored_tables(blocks_of(20), IDS, GRID, 20)
    computed = rotary_3d(IDS, GRID, 20, "interleaved")
    assert stored.partner is None
    torch.testing.assert_close(stored.cos, computed.cos)
    torch.testing.assert_close(stored.sin, computed.sin)


def test_blocks_that_agree_share_tables_and_one_that_differs_has_its_own():
    blocks = blocks_of(20, depth=3)
    blocks[1].attn.h_rotary_emb.freqs.mul_(2)
    first, second, third = stored_tables(blocks, IDS, GRID, 20)
    assert first is third
    (alone,) = stored_tables(blocks[1:2], IDS, GRID, 20)
    assert torch.equal(second.cos, alone.cos) and not torch.equal(second.cos, first.cos)


def test_frequencies_are_kept_but_not_trained():
    (block,) = blocks_of(20)
    assert block.state_dict()["attn.d_rotary_emb.freqs"].shape == (3,)
    assert not [name for name, _ in block.named_parameters() if "rotary" in name]


def test_heads_too_narrow_are_refused_and_the_advice_holds():
    with pytest.raises(ValueError, match="Use fewer heads or more width"):
        blocks_of(4)
    blocks_of(8)
