"""Rows cut to one length: which of the chosen tokens are left."""

import torch

from vjepa.masks.base import take_ids


def test_a_random_surplus_leaves_the_smallest_numbers_and_of_equal_ones_the_first(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(50, 64, generator=generator) < 0.6
    count = int(chosen.sum(1).min())
    for values in (4, 2**24):  # with ties everywhere, and with none
        numbers = torch.randint(values, chosen.shape, generator=generator) / values
        monkeypatch.setattr(torch, "rand", lambda shape, generator, numbers=numbers: numbers)
        found = take_ids(chosen, count, "random", generator)
        ordered = numbers.masked_fill(~chosen, 2.0).argsort(dim=1, stable=True)
        assert torch.equal(found, ordered[:, :count].sort(dim=1).values)
