"""Attentive probes of one make, computed side by side: the tokens are read once, the weights lie stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from vjepa.layers.pooling import read_tokens
from vjepa.probes.attentive import AttentiveProbe


class ProbeGrid:
    """Attentive probes that see the same tokens.

    The parameters of a head become views of its row of one tensor: an optimiser steps a row at a time, after
    `hand_out_gradients`, and not 14 small tensors. Each head can be used by itself at any time.

    Args:
        heads: Probes of one make, on one device.
    """

    def __init__(self, heads: Sequence[AttentiveProbe]) -> None:
        self.heads = tuple(heads)
        self._shares_reading = not len(self.heads[0].pooler.blocks)
        self.trained: list[list[Tensor]] = [list(head.parameters()) for head in self.heads]
        if self._shares_reading:
            looking, naming = _Looking(self.heads[0]), _Naming(self.heads[0])
            self._looks = vmap(lambda weights: functional_call(looking, weights, ()))
            self._names = vmap(lambda weights, mixed: functional_call(naming, weights, (mixed,)))
            self._shapes = {f"probe.{name}": p.shape for name, p in self.heads[0].named_parameters()}
            whole = torch.stack([parameters_to_vector(own) for own in self.trained]).detach()
            for head, row in zip(self.heads, whole, strict=True):
                vector_to_parameters(row, head.parameters())
            self.trained = [[nn.Parameter(row)] for row in whole]
            self._whole = whole.requires_grad_()

    def __call__(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "heads b classes"]:
        """Logits of every head; deep heads share no reading, as each has blocks of its own before it.

        Args:
            tokens: Tokens (B, N, D).
        """
        if not self._shares_reading:
            return torch.stack([head(tokens) for head in self.heads])
        stacked = self._stacked()
        looks = self._looks(stacked)
        mixed = read_tokens(tokens, rearrange(looks, "heads looks d -> (heads looks) d"))
        by_head = rearrange(mixed, "b (heads looks) d -> heads b looks d", heads=len(self.heads))
        return cast("Tensor", self._names(stacked, by_head))

    def hand_out_gradients(self) -> None:
        """Give each row of `trained` its part of the gradient that `backward` left, and forget the rest."""
        if not self._shares_reading:
            return
        assert self._whole.grad is not None
        for (row,), grad in zip(self.trained, self._whole.grad, strict=True):
            row.grad = grad
        self._whole.grad = None

    def part(self) -> None:
        """Give each head weights of its own, which the grid no longer follows: to keep one and drop the others."""
        for head in self.heads:
            for parameter in head.parameters():
                parameter.data = parameter.data.clone()

    def _stacked(self) -> dict[str, Tensor]:
        """All heads' weights by name; split, since its gradient is one concatenation."""
        parts = self._whole.split([shape.numel() for shape in self._shapes.values()], dim=1)
        named = zip(self._shapes.items(), parts, strict=True)
        return {name: part.unflatten(1, shape) for (name, shape), part in named}


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
