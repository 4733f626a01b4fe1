"""CPU attention by blocks of queries, forward and backward, as custom operators that torch.compile does not trace."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Bytes of scores per block: they fit a core's own cache
BLOCK_BYTES = 2**20


# the schema is explicit, because torch cannot infer it from annotations that the tests decorate
@torch.library.custom_op(
    "vjepa::attend_in_blocks", mutates_args=(), schema="(Tensor query, Tensor key, Tensor value) -> Tensor"
)
def attend_in_blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute softmax attention in blocks of queries of one head, whose scores fit a core's cache.

    Queries, keys, values and results are (B, heads, N, d).
    """
    mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
    scaled = query * query.shape[-1] ** -0.5
    for row, head, part in _blocks(query):
        weights = (scaled[row, head, part] @ key[row, head].T).softmax(dim=-1)
        torch.mm(weights, value[row, head], out=mixed[row, head, part])
    return mixed


@torch.library.custom_op(
    "vjepa::attend_in_blocks_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor query, Tensor key, Tensor value) -> (Tensor, Tensor, Tensor)",
)
def attend_in_blocks_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value, recomputing the attention weights block by block.

    The gradients of keys and values are sums over blocks; the sums are in fp32.
    """
    scale = query.shape[-1] ** -0.5
    scaled = query * scale
    for_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    for_key, for_value = (torch.zeros(key.shape, dtype=torch.float32, device=key.device) for _ in range(2))
    for row, head, part in _blocks(query):
        keys, queries, arriving = key[row, head], scaled[row, head, part], gradient[row, head, part]
        weights = (queries @ keys.T).softmax(dim=-1)
        for_value[row, head] += weights.T @ arriving
        for_weights = arriving @ value[row, head].T
        for_scores = torch.ops.aten._softmax_backward_data(for_weights, weights, -1, weights.dtype)
        torch.mm(for_scores, keys, out=for_query[row, head, part])
        for_key[row, head] += for_scores.T @ queries
    return for_query.mul_(scale), for_key.to(key.dtype), for_value.to(value.dtype)


def _blocks(query: Tensor) -> Iterator[tuple[int, int, slice]]:
    """Yield the batch row, the head and the slice of queries of each block."""
    batch, heads, length, _ = query.shape
    size = max(1, BLOCK_BYTES // (length * query.element_size()))
    starts = range(0, length, size)
    for row, head, start in itertools.product(range(batch), range(heads), starts):
        yield row, head, slice(start, start + size)


@attend_in_blocks.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@attend_in_blocks_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    like = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (query, key, value)]
    return like[0], like[1], like[2]


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return attend_in_blocks_backward(gradient, *ctx.saved_tensors)


attend_in_blocks.register_autograd(_gradients, setup_context=_keep)
