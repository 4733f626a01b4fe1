"""What a training step costs, read off a step over tensors that have shapes and no numbers.

The step is the real one: forward, backward, AdamW and moving averages of the objective itself, under torch's fake
tensors. Operations are counted by `torch.utils.flop_counter`, memory by the lives of the tensors' storages; scratch
memory inside an operation is not seen, nor what an allocator wastes.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vjepa.layers import Block
from vjepa.masks import MaskStrategy
from vjepa.objectives import Objective
from vjepa.optim import decay_groups, ema_update
from vjepa.types import ClipBatch, MaskPair, TokenGrid

Device = Literal["cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PARTS = ("target_encoder", "context_encoder", "predictor")
CHANNELS = 3
DRAWS = 32  # of each mask strategy: their lengths differ by batch


@dataclass(frozen=True)
class MaskLengths:
    """Lengths of one strategy's masks: `context` and `target` ids a row, `targets` rows a clip."""

    context: int
    target: int
    targets: int = 1


@dataclass(frozen=True)
class StepCost:
    """Of one step on one device.

    `state_bytes` are weights, gradients, AdamW's averages and the target encoder; `peak_bytes` is the most that was
    held at once, states included. FLOPs count a product and a sum as two; `forward` is by network, `backward`
    includes what is computed again there.
    """

    forward: dict[str, int]
    forward_flops: int
    backward_flops: int
    state_bytes: int
    peak_bytes: int

    @property
    def flops(self) -> int:
        """Forward and backward."""
        return self.forward_flops + self.backward_flops


def drawn_lengths(
    masks: Sequence[MaskStrategy], grid: TokenGrid, batch_size: int, seed: int = 0
) -> tuple[list[MaskLengths], list[MaskLengths]]:
    """The mean lengths of each strategy's masks, and those of the draw with the longest context.

    Args:
        masks: Strategies.
        grid: Extent of a clip in tokens.
        batch_size: Clips of a batch: the more, the shorter its shortest mask.
        seed: Of the draws.
    """
    mean, longest = [], []
    for number, strategy in enumerate(masks):
        generator = torch.Generator().manual_seed(seed + number)
        pairs = [strategy.sample_apart(grid, batch_size, generator) for _ in range(DRAWS)]
        drawn = [
            MaskLengths(p.context.shape[1], p.target.shape[1], len(p.context) // batch_size) for p in pairs
        ]
        sums = (sum(each.context for each in drawn), sum(each.target for each in drawn))
        mean.append(MaskLengths(*(round(total / DRAWS) for total in sums), targets=drawn[0].targets))
        longest.append(max(drawn, key=lambda each: (each.context, each.target)))
    return mean, longest


def dry_step(
    objective: Objective,
    clips: tuple[int, int, int, int],
    lengths: Sequence[MaskLengths],
    *,
    precision: Precision = "32-true",
    device: Device = "cuda",
    recompute: bool | None = None,
) -> StepCost:
    """Cost of a training step, without the memory or the time for one.

    Args:
        objective: With weights anywhere, the meta device too; it stays as it is.
        clips: Shape of the batch: clips, frames, height, width.
        lengths: Of the masks, one a strategy.
        precision: As Lightning calls it.
        device: A "cpu" has ways of its own for attention in bf16; others are taken to have fused attention.
        recompute: Compute blocks again in the backward pass; None as the objective's blocks say.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is not known here. Give {', '.join(get_args(Precision))}.")
    from torch._subclasses.fake_tensor import FakeTensorMode

    trial, live = copy.deepcopy(objective), LiveBytes()
    trial.masks = [_Given(each) for each in lengths]
    for block in (module for module in trial.modules() if isinstance(module, Block)):
        block.recompute = block.recompute if recompute is None else recompute
    with FakeTensorMode(allow_non_fake_inputs=True):
        with live:
            trial.to_empty(device="cpu")
            optimizer = _after_a_step(decay_groups(trial.context_encoder, trial.predictor))
        state, live.peak = live.now, live.now
        forward, backward = _step(trial, optimizer, clips, live, _autocast(precision, device))
    counts, name = forward.get_flop_counts(), type(trial).__name__
    return StepCost(
        forward={part: sum(counts.get(f"{name}.{part}", {}).values()) for part in PARTS},
        forward_flops=forward.get_total_flops(),
        backward_flops=backward.get_total_flops(),
        state_bytes=state,
        peak_bytes=live.peak,
    )


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that operations have made and that are still held, and the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out an operation and count what it made."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1  # nobody knows the number; 1 will do for the id of a token, and for AdamW's count of steps
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # views share it
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class _Given(MaskStrategy):
    """Masks of given lengths; which tokens they name costs nothing."""

    def __init__(self, lengths: MaskLengths) -> None:
        self.lengths = lengths

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        rows = batch_size * self.lengths.targets
        context, target = (
            torch.zeros(rows, n, dtype=torch.long) for n in (self.lengths.context, self.lengths.target)
        )
        return MaskPair(context=context, target=target)


def _after_a_step(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW as a step leaves it: with its averages, and the gradients not yet let go."""
    for weight in (weight for group in groups for weight in group["params"]):
        weight.grad = torch.zeros_like(weight)
    optimizer = torch.optim.AdamW(groups)
    optimizer.step()
    return optimizer


def _step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    clips: tuple[int, int, int, int],
    live: LiveBytes,
    precision: AbstractContextManager[Any],
) -> tuple[FlopCounterMode, FlopCounterMode]:
    """A step in Lightning's order: the gradients of the step before are let go after the forward pass."""
    operators = torch.ops.vjepa
    blocks = {
        operators.attend_in_blocks: _attention_flops,
        operators.attend_in_blocks_backward: _attention_backward_flops,
    }
    forward, backward = (FlopCounterMode(display=False, custom_mapping=dict(blocks)) for _ in range(2))
    num_clips, num_frames, height, width = clips
    with forward, live:
        rows = torch.zeros(num_clips, dtype=torch.long)
        video = torch.zeros(num_clips, CHANNELS, num_frames, height, width)
        with precision:
            loss = objective(ClipBatch(video=video, label=rows, index=rows), torch.Generator()).loss
    with backward, live:
        optimizer.zero_grad()
        loss.backward()
    with live:
        optimizer.step()
        if pairs := objective.ema_pairs():
            ema_update(pairs, 0.5)
    return forward, backward


def _autocast(precision: Precision, device: Device) -> AbstractContextManager[Any]:
    """Mixed precision of two bytes; fp16 stands for both kinds on a GPU, for a CPU mixes bf16 in its own way."""
    if precision == "32-true":
        return nullcontext()
    own = device == "cpu" and precision == "bf16-mixed"
    return torch.autocast("cpu", dtype=torch.bfloat16 if own else torch.float16)


def _attention_flops(query: Any, key: Any, value: Any, out_shape: Any = None) -> int:
    """Two products, each of all queries with all keys."""
    rows, heads, length, width = query
    return 4 * rows * heads * length * length * width


def _attention_backward_flops(gradient: Any, query: Any, key: Any, value: Any, out_shape: Any = None) -> int:
    """Five products: the scores again, and the gradients of weights, queries, keys and values."""
    rows, heads, length, width = query
    return 10 * rows * heads * length * length * width
