"""Weights in halves: what they hold, how they average, what a checkpoint of them holds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from vjepa.models import VideoEncoder
from vjepa.optim import ema_distance, ema_update, exact, halve, in_halves
from vjepa.optim.halves import HalvedParameter, join, split

TIE = 0x3F80_8000  # the bits of a number half-way between two of bfloat16's


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def exact_weights(module: nn.Module) -> list[Tensor]:
    return [exact(weight).detach().clone() for weight in module.parameters()]


def bits(weight: Tensor) -> Tensor:
    return weight.view(torch.int32)


def test_any_number_comes_back_to_the_bit_and_nan_as_nan():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-(2**31), 2**31, (100_000,), generator=generator).to(torch.int32)
    special = [
        0,
        1,
        -(2**31),
        TIE,
        TIE + 0x1_0000,
        TIE - 1,
        TIE + 1,
        0x7F80_0000,
        0x7FC0_0000,
        0x7FFF_FFFF,
        -1,
    ]
    given = torch.cat([drawn, torch.tensor(special, dtype=torch.int32)])
    weight = given.view(torch.float32)
    is_number = ~weight.isnan()
    upper, lower = split(weight)
    assert torch.equal(bits(join(upper, lower))[is_number], given[is_number])
    assert join(upper, lower)[~is_number].isnan().all() and upper[~is_number].isnan().all()


def test_the_upper_half_is_the_nearest():
    weight = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(split(weight)[0], weight.bfloat16())  # no ties among them


def test_a_module_in_halves_keeps_its_weights_and_computes_in_bfloat16():
    plain, halved = network(), network()
    halve(halved)
    assert in_halves(halved) and not in_halves(plain)
    assert all(weight.dtype == torch.bfloat16 for weight in halved.parameters())
    assert [w.requires_grad for w in halved.parameters()] == [w.requires_grad for w in plain.parameters()]
    given = torch.randn(4, 6)
    rounded = copy.deepcopy(plain).bfloat16()
    assert torch.equal(halved(given.bfloat16()), rounded(given.bfloat16()))
    for kept in (halved, copy.deepcopy(halved)):
        for name, weight in plain.state_dict().items():
            assert torch.equal(kept.state_dict()[name], weight), name


def test_a_weight_that_two_layers_share_stays_shared():
    pair = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    pair[1].weight = pair[0].weight
    halve(pair)
    assert pair[0].weight is pair[1].weight


def test_weights_are_loaded_exactly():
    halved, other = network(), nn.Sequential(*network())
    halve(halved)
    nn.init.normal_(other[0].weight)
    other_state = other.state_dict()
    given = {name: weight.clone() for name, weight in other_state.items()}
    halved.load_state_dict(other_state)
    for name, weight in given.items():
        assert torch.equal(halved.state_dict()[name], weight) and torch.equal(other_state[name], weight)
    with pytest.raises(RuntimeError, match="size mismatch"):
        halved.load_state_dict(given | {"0.weight": torch.zeros(2, 2)})
    assert torch.equal(halved.state_dict()["0.weight"], given["0.weight"])


def test_an_encoder_in_bfloat16_takes_clips_in_fp32():
    encoder = VideoEncoder(
        img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=1, num_heads=2, position="sincos"
    )
    halve(encoder)
    assert encoder.pos_embed.dtype == torch.float32
    assert encoder(torch.randn(1, 3, 4, 16, 16)).dtype == torch.bfloat16


@pytest.mark.parametrize("momentum", [0.5, 0.99995])
def test_averages_are_those_of_fp32_weights(momentum):
    pairs = [(network(), network()) for _ in range(2)]
    for _, source in pairs:
        with torch.no_grad():
            source[0].weight.add_(0.01)
    for module in pairs[1]:
        halve(module)
    before = exact_weights(pairs[1][0])[0]
    for _ in range(5):
        for pair in pairs:
            ema_update([pair], momentum)
    for plain, halved in zip(exact_weights(pairs[0][0]), exact_weights(pairs[1][0]), strict=True):
        assert torch.equal(plain, halved)
    assert not torch.equal(exact_weights(pairs[1][0])[0], before)  # bfloat16 alone would stand still
    assert ema_distance([pairs[0]]) == ema_distance([pairs[1]]) > 0


def test_the_lower_half_follows_its_weight_to_another_device():
    weight = HalvedParameter(torch.ones(2, dtype=torch.bfloat16, device="meta"))
    weight.lower = torch.zeros(2, dtype=torch.int16)  # as a module leaves it that moves its weights
    assert weight.exact().device.type == weight.lower.device.type == "meta"


def test_what_is_halved_twice_is_halved_once():
    halved, given = network(), {name: torch.randn_like(w) for name, w in network().state_dict().items()}
    halve(halved)
    weights = list(halved.parameters())
    halve(halved)
    assert all(a is b for a, b in zip(weights, halved.parameters(), strict=True))
    halved.load_state_dict(given)
    assert all(torch.equal(weight, given[name]) for name, weight in halved.state_dict().items())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_other_types_are_taken_in_fp32(kind):
    module = network().to(kind)
    before = [weight.detach().float() for weight in module.parameters()]
    halve(module)
    assert all(torch.equal(a, b) for a, b in zip(before, exact_weights(module), strict=True))


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_a_cast_of_halves_is_told_and_the_advice_holds(kind):
    halved = network()
    halve(halved)
    state = halved.state_dict()
    with pytest.raises(RuntimeError, match="or one that loads its state_dict"):
        halved.to(kind).state_dict()
    plain = network()
    plain.load_state_dict(state)
    plain.to(kind)
