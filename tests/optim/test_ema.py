"""Moving averages and parameter groups."""

import pytest
import torch
from torch import nn

from vjepa.models import Predictor, VideoEncoder
from vjepa.optim import decay_groups, ema_distance, ema_update


def filled(value: float) -> nn.Linear:
    layer = nn.Linear(2, 2)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


def test_average_moves_by_the_rest_of_the_momentum():
    average, source = filled(1.0), filled(3.0)
    ema_update([(average, source)], 0.75)
    assert torch.equal(average.weight, torch.full((2, 2), 1.5))
    assert torch.equal(source.weight, torch.full((2, 2), 3.0))


@pytest.mark.parametrize(("momentum", "expected"), [(1.0, 1.0), (0.0, 3.0)])
def test_ends_of_the_momentum(momentum, expected):
    average = filled(1.0)
    ema_update([(average, filled(3.0))], momentum)
    assert torch.equal(average.bias, torch.full((2,), expected))


def test_distance_is_relative_to_the_source():
    assert ema_distance([(filled(1.0), filled(1.0))]) == 0
    assert ema_distance([(filled(1.0), filled(2.0))]).item() == pytest.approx(0.5)


def test_groups_are_in_the_order_of_the_released_states():
    encoder = VideoEncoder(img_size=16, patch_size=8, num_frames=2, embed_dim=12, depth=1, num_heads=1)
    predictor = Predictor(12, embed_dim=12, depth=1, num_heads=1)
    groups = decay_groups(encoder, predictor)
    assert [g["decay"] for g in groups] == [True, True, False, False]
    assert (
        sum(p.numel() for g in groups for p in g["params"])
        == encoder.num_parameters + predictor.num_parameters
    )
    assert all(p.ndim == 1 for g in groups[2:] for p in g["params"])
    decayed = {id(p) for p in groups[1]["params"]}
    assert {id(p) for p in predictor.mask_tokens} <= decayed  # as released
    assert {id(encoder.patch_embed.proj.weight)} <= {id(p) for p in groups[0]["params"]}


def test_frozen_weights_are_in_no_group():
    layer = filled(1.0).requires_grad_(False)
    assert not any(group["params"] for group in decay_groups(layer))
