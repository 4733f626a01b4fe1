"""Attentive probes of one shape, computed together: the tokens are read once, and the weights are stacked."""

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

    For depth 1, the weights of all heads lie in one matrix, one row per head. The heads' own parameters are
    views of their row, so that each head can be used by itself at any time. An optimiser steps the rows,
    `weights`: a few large tensors instead of hundreds of small ones. For other depths, `weights` are the
    heads' own parameters.
    """

    def __init__(self, heads: Sequence[AttentiveProbe]) -> None:
        self.heads = tuple(heads)
        self._shares_reading = not len(self.heads[0].pooler.blocks)
        if self._shares_reading:
            before = _Half(self.heads[0], lambda probe: probe.pooler.token_queries())
            after = _Half(self.heads[0], lambda probe, mixed: probe.linear(probe.pooler.pool(mixed)[:, 0]))
            self._queries = vmap(lambda weights: functional_call(before, weights, ()))
            self._logits = vmap(lambda weights, mixed: functional_call(after, weights, (mixed,)))
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
        """Return the logits of every probe; probes with blocks before the pooling read the tokens separately.

        `prepare` standardises each clip of tokens first.
        """
        if not self._shares_reading:
            prepared = prepare(tokens)
            return torch.stack([head(prepared) for head in self.heads])
        queries = self._queries(self._stacked)
        mixed = read_tokens(tokens, rearrange(queries, "heads hq d -> (heads hq) d"), prepare)
        by_head = rearrange(mixed, "b (heads hq) d -> heads b hq d", heads=len(self.heads))
        return cast("Tensor", self._logits(self._stacked, by_head))

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


class _Half(nn.Module):
    """A part of a probe's forward pass, as a module of the probe's weights."""

    def __init__(self, probe: AttentiveProbe, part: Callable[..., Tensor]) -> None:
        super().__init__()
        self.probe, self.part = probe, part

    def forward(self, *given: Tensor) -> Tensor:
        return self.part(self.probe, *given)
