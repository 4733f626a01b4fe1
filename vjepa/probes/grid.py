"""Attentive probes of one make, computed side by side: the tokens are read once, the weights lie stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from vjepa.layers.pooling import read_tokens
from vjepa.probes.attentive import AttentiveProbe


class ProbeGrid:
    """Attentive probes that see the same tokens.

    The heads keep their own parameters, which become rows of the stacked ones: an optimiser steps the heads after
    `hand_out_gradients`, and each head can be used by itself at any time.

    Args:
        heads: Probes of one make, on one device.
    """

    def __init__(self, heads: Sequence[AttentiveProbe]) -> None:
        self.heads = tuple(heads)
        self._shares_reading = not len(self.heads[0].pooler.blocks)
        if self._shares_reading:
            looking, naming = _Looking(self.heads[0]), _Naming(self.heads[0])
            self._looks = vmap(lambda weights: functional_call(looking, weights, ()))
            self._names = vmap(lambda weights, mixed: functional_call(naming, weights, (mixed,)))
            self._stacked, _ = stack_module_state([_Looking(head) for head in self.heads])
            for name, stacked in self._stacked.items():
                for head, row in zip(self.heads, stacked.data, strict=True):
                    head.get_parameter(name.removeprefix("probe.")).data = row

    def __call__(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "heads b classes"]:
        """Logits of every head; deep heads share no reading, as each has blocks of its own before it.

        Args:
            tokens: Tokens (B, N, D).
        """
        if not self._shares_reading:
            return torch.stack([head(tokens) for head in self.heads])
        looks = self._looks(self._stacked)
        mixed = read_tokens(tokens, rearrange(looks, "heads looks d -> (heads looks) d"))
        by_head = rearrange(mixed, "b (heads looks) d -> heads b looks d", heads=len(self.heads))
        return cast("Tensor", self._names(self._stacked, by_head))

    def hand_out_gradients(self) -> None:
        """Give each head its row of the gradients that `backward` left, and forget the rest."""
        if not self._shares_reading:
            return
        for name, stacked in self._stacked.items():
            assert stacked.grad is not None
            for head, row in zip(self.heads, stacked.grad, strict=True):
                head.get_parameter(name.removeprefix("probe.")).grad = row
            stacked.grad = None


class _Looking(nn.Module):
    """The half of a probe before the tokens are read."""

    def __init__(self, probe: AttentiveProbe) -> None:
        super().__init__()
        self.probe = probe

    def forward(self) -> Float[Tensor, "looks d"]:
        return self.probe.pooler.look()


class _Naming(nn.Module):
    """The half after it."""

    def __init__(self, probe: AttentiveProbe) -> None:
        super().__init__()
        self.probe = probe

    def forward(self, mixed: Float[Tensor, "b looks d"]) -> Float[Tensor, "b classes"]:
        return self.probe.linear(self.probe.pooler.pool(mixed)[:, 0])
