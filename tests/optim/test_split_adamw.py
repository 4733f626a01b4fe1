"""AdamW on weights in halves: the steps of fp32 weights, to the bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.optim.test_halves import exact_weights, network
from vjepa.optim import SplitAdamW, halve


@pytest.mark.parametrize("lr", [1e-2, 1e-6])
def test_steps_are_those_of_fp32_weights(lr):
    plain, halved = network(), network()
    halve(halved)
    reference = torch.optim.AdamW(plain.parameters(), lr=lr, weight_decay=0.1, fused=True)
    optimizer = SplitAdamW([{"params": list(halved.parameters()), "lr": lr, "weight_decay": 0.1}])
    before = exact_weights(halved)
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        if step == 3:  # stopped and resumed
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = SplitAdamW([{"params": list(halved.parameters()), "lr": 1.0}])
            optimizer.load_state_dict(state)
        for a, b in zip(plain.parameters(), halved.parameters(), strict=True):
            b.grad = torch.randn(a.shape, generator=generator).bfloat16()
            a.grad = b.grad.float()
        reference.step()
        assert optimizer.step(lambda: torch.tensor(7.0)) == 7.0
    for a, b, c in zip(plain.parameters(), exact_weights(halved), before, strict=True):
        assert torch.equal(a, b) and not torch.equal(b, c)
    next(halved.parameters()).grad = None
    kept = exact_weights(halved)[0]
    optimizer.step()
    assert torch.equal(exact_weights(halved)[0], kept)


def test_a_state_is_loaded_to_where_the_weights_are():
    def optimizer_of(module: nn.Module) -> SplitAdamW:
        return SplitAdamW([{"params": list(module.parameters()), "lr": 1e-3}])

    held, other = network(), network()
    halve(held)
    halve(other.to("meta"))
    optimizer = optimizer_of(held)
    for weight in held.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    resumed = optimizer_of(other)
    resumed.load_state_dict(optimizer.state_dict())
    for weight in other.parameters():
        state = resumed.state[weight]
        assert {state[name].device.type for name in ("exp_avg", "exp_avg_sq")} == {"meta"}
        assert state["exp_avg"].dtype == torch.float32 and float(state["step"]) == 1.0  # not fused there
