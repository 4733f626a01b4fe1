"""The gated MLP, by its formula, and its widths."""

import pytest
import torch
from torch import nn

from vjepa.layers import Block, init_weights, rescale_blocks
from vjepa.layers.swiglu import SwiGlu, two_thirds


def test_formula():
    torch.manual_seed(0)
    mlp, x = SwiGlu(embed_dim=6, hidden_dim=10), torch.randn(2, 3, 6)
    gate, value = x @ mlp.fc1.weight.T + mlp.fc1.bias, x @ mlp.fc2.weight.T + mlp.fc2.bias
    expected = (gate * gate.sigmoid() * value) @ mlp.fc3.weight.T + mlp.fc3.bias
    torch.testing.assert_close(mlp(x), expected)


@pytest.mark.parametrize(
    ("hidden", "width"), [(128, 88), (192, 128), (6144, 4096), (100, 72), (12, 8), (13, 8)]
)
def test_two_thirds_in_eights(hidden, width):
    assert two_thirds(hidden) == width


@pytest.mark.parametrize(("kind", "width"), [("gelu", 96), ("swiglu", 64), ("swiglu_full", 96)])
def test_width_by_kind(kind, width):
    assert Block(embed_dim=24, num_heads=3, mlp=kind).mlp.fc1.out_features == width


def test_the_second_input_projection_is_rescaled_as_released():
    torch.manual_seed(0)
    blocks = nn.ModuleList(Block(embed_dim=96, num_heads=3, mlp="swiglu_full") for _ in range(2))
    blocks.apply(init_weights)
    rescale_blocks(blocks)
    stds = [getattr(blocks[1].mlp, name).weight.std().item() for name in ("fc1", "fc2", "fc3")]
    assert stds == pytest.approx([0.02, 0.01, 0.02], rel=0.03)
