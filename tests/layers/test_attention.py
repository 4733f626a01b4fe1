"""Attention and blocks, against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vjepa.layers import Attention, Block, init_weights, rescale_blocks, rotary_3d
from vjepa.layers.attention import MAX_EXPLICIT, attend
from vjepa.layers.heads import split_heads
from vjepa.types import TokenGrid


@pytest.fixture
def tokens():
    return torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))


def test_attention_is_that_of_torch(tokens):
    torch.manual_seed(0)
    ours, theirs = Attention(embed_dim=24, num_heads=3), nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.load_state_dict({
        "in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias,
        "out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias,
    })  # fmt: skip
    expected, _ = theirs(tokens, tokens, tokens)
    torch.testing.assert_close(ours(tokens), expected, atol=1e-6, rtol=1e-5)


def test_rotary_tables_change_the_outcome_by_place(tokens):
    attention, grid = Attention(embed_dim=24, num_heads=3), TokenGrid(2, 3, 3)
    near, far = (rotary_3d(torch.arange(5)[None] * step, grid, 8) for step in (1, 3))
    assert not torch.allclose(attention(tokens, near), attention(tokens, far))
    assert not torch.allclose(attention(tokens, near), attention(tokens))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_what_is_not_visible_counts_for_nothing(tokens, dtype):
    attention, tokens = Attention(embed_dim=24, num_heads=3).to(dtype), tokens.to(dtype)
    visible = torch.ones(5, 5, dtype=torch.bool).tril()
    mixed = attention(tokens, visible=visible)
    for seen in range(1, 5):
        alone = attention(tokens[:, :seen])
        torch.testing.assert_close(
            mixed[:, seen - 1], alone[:, -1], atol=1e-2 if dtype.itemsize < 4 else 1e-6, rtol=0
        )
    assert torch.equal(attention(tokens, visible=torch.ones_like(visible)), attention(tokens))
    assert not torch.allclose(mixed[:, 0], attention(tokens)[:, 0], atol=1e-2)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="must be divisible"):
        Attention(embed_dim=24, num_heads=5)


def test_a_block_adds_to_its_input(tokens):
    block = Block(embed_dim=24, num_heads=3, norm_eps=1e-5)
    assert block.norm1.eps == block.norm2.eps == 1e-5
    for projection in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(projection.weight)
        nn.init.zeros_(projection.bias)
    assert torch.equal(block(tokens), tokens)


def test_drop_path_skips_rows_in_training_alone(tokens):
    torch.manual_seed(0)
    block = Block(embed_dim=24, num_heads=3, drop_path=0.999)
    assert torch.equal(block.train()(tokens), tokens)
    assert not torch.equal(block.eval()(tokens), tokens)


def test_hidden_width_of_the_mlp():
    assert Block(embed_dim=1408, num_heads=22, mlp_ratio=48 / 11).mlp.fc1.out_features == 6144


def test_init_and_rescale():
    torch.manual_seed(0)
    blocks = nn.ModuleList(Block(embed_dim=96, num_heads=3) for _ in range(4)).apply(init_weights)
    rescale_blocks(blocks)
    for depth, block in enumerate(blocks, start=1):
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert block.attn.proj.weight.std().item() == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.03)
        assert block.mlp.fc2.weight.std().item() == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.03)
        assert not block.attn.qkv.bias.any()


@pytest.mark.parametrize("length", [MAX_EXPLICIT, MAX_EXPLICIT + 1])
def test_half_precision_without_gradient_is_as_close_as_with_it(length):
    whole = torch.randn(3, 1, 2, length, 8, generator=torch.Generator().manual_seed(0))
    half = whole.bfloat16()
    expected = F.scaled_dot_product_attention(*whole)
    with torch.no_grad():
        without = attend(*half)
    for mixed in (without, attend(*half)):
        torch.testing.assert_close(mixed.float(), expected, atol=2e-2, rtol=0)


def test_second_derivatives_are_refused():
    projected = torch.randn(1, 6, 3 * 12, requires_grad=True)
    rotary = rotary_3d(torch.arange(6)[None], TokenGrid(t=6, h=1, w=1), 12)
    query, _, _ = split_heads(projected, 1, rotary)
    with pytest.raises(ValueError, match="second derivatives are not computed"):
        torch.autograd.grad(query.sum(), projected, create_graph=True)
