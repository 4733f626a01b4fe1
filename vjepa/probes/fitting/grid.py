"""Attentive probes of one make, computed side by side: the tokens are read once, the weights lie stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    The weights of all heads lie in one matrix, a row a head, and the heads' own parameters are parts of their row, so
    that each can be used by itself at any time. An optimiser steps the rows, `weights`: a few large tensors and not
    hundreds of small ones.

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
            self._rows = torch.stack([parameters_to_vector(h.parameters()).detach() for h in self.heads])
            self._gradients = torch.empty_like(self._rows)
            self._stacked, end = dict[str, Tensor](), 0
            for name, weight in self.heads[0].named_parameters():
                begin, end = end, end + weight.numel()
                stacked = self._rows[:, begin:end].view(len(self.heads), *weight.shape)
                self._stacked[f"probe.{name}"] = stacked.requires_grad_()
            self.weights = [[nn.Parameter(row)] for row in self._rows]
            for head, row in zip(self.heads, self._rows, strict=True):
                vector_to_parameters(row, head.parameters())
        else:
            self.weights = [list(head.parameters()) for head in self.heads]

    def __call__(
        self, tokens: Float[Tensor, "b n d"], prepare: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "heads b classes"]:
        """Logits of every head; deep heads share no reading, as each has blocks of its own before it.

        Args:
            tokens: Tokens (B, N, D).
            prepare: What is done to the tokens first, clip by clip: a standardisation.
        """
        if not self._shares_reading:
            prepared = prepare(tokens)
            return torch.stack([head(prepared) for head in self.heads])
        looks = self._looks(self._stacked)
        mixed = read_tokens(tokens, rearrange(looks, "heads looks d -> (heads looks) d"), prepare)
        by_head = rearrange(mixed, "b (heads looks) d -> heads b looks d", heads=len(self.heads))
        return cast("Tensor", self._names(self._stacked, by_head))

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Give each of `weights` its gradient of a loss of the logits."""
        if not self._shares_reading:
            loss.backward()
            return
        end = 0
        for found in torch.autograd.grad(loss, list(self._stacked.values())):
            begin, end = end, end + found[0].numel()
            self._gradients[:, begin:end].view_as(found).copy_(found)
        for (weight,), row in zip(self.weights, self._gradients, strict=True):
            weight.grad = row


class _Looking(nn.Module):
    """The half of a probe before the tokens are read."""

    def __init__(self, probe: AttentiveProbe) -> None:
        super().__init__()
        self.probe = probe

    def forward(self) -> Float[Tensor, "looks d"]:
        return self.probe.pooler.token_queries()


class _Naming(nn.Module):
    """The half after it."""

    def __init__(self, probe: AttentiveProbe) -> None:
        super().__init__()
        self.probe = probe

    def forward(self, mixed: Float[Tensor, "b looks d"]) -> Float[Tensor, "b classes"]:
        return self.probe.linear(self.probe.pooler.pool(mixed)[:, 0])
