"""Measures of features, where their values are known."""

import pytest
import torch

from vjepa.metrics import cosine_to_mean, effective_rank, feature_std


def test_spread():
    assert feature_std(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == pytest.approx(2**0.5 / 2)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_of_equally_strong_directions(rank):
    directions = torch.cat([torch.eye(8)[:rank], -torch.eye(8)[:rank]])
    assert effective_rank(directions).item() == pytest.approx(rank, rel=1e-3)


def test_rank_ignores_a_shared_constant_and_scale():
    tokens = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    assert effective_rank(3 * tokens + 10).item() == pytest.approx(effective_rank(tokens).item(), rel=1e-3)
    assert effective_rank(torch.ones(16, 8)).item() == pytest.approx(1.0, abs=0.01)


def test_cosine_to_mean():
    assert cosine_to_mean(torch.ones(4, 3)).item() == pytest.approx(1.0)
    assert cosine_to_mean(torch.cat([torch.eye(3), -torch.eye(3)])).item() == pytest.approx(0.0)
