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
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vjepa.layers import Block
from vjepa.masks import MaskStrategy
from vjepa.objectives import Objective
from vjepa.optim import decay_groups, ema_update
from vjepa.training.precision import PrecisionName
from vjepa.types import ClipBatch, MaskPair, TokenGrid

ClipsShape = tuple[int, int, int, int]  # clips, frames, height, width
Device = Literal["cpu", "cuda"]
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
class StepFlops:
    """FLOPs of one step on one device, a product and a sum being two.

    `parts` is the forward pass by network; `backward` includes what is computed again there.
    """

    parts: dict[str, int]
    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Forward and backward."""
        return self.forward + self.backward


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one step on one device, with all weights on it.

    `state` are weights with what is kept beside them, gradients, AdamW's averages and the target encoder; `peak` is
    the most that was held at once, states included.
    """

    state: int
    peak: int


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
        context, target = (
            round(sum(n) / DRAWS) for n in zip(*((d.context, d.target) for d in drawn), strict=True)
        )
        mean.append(MaskLengths(context, target, drawn[0].targets))
        longest.append(max(drawn, key=lambda each: (each.context, each.target)))
    return mean, longest


def dry_flops(
    objective: Objective,
    clips: ClipsShape,
    lengths: Sequence[MaskLengths],
    *,
    precision: PrecisionName = "32-true",
    device: Device = "cuda",
    recompute: bool | None = None,
) -> StepFlops:
    """FLOPs of a training step.

    Args:
        objective: With weights anywhere, the meta device too; it stays as it is.
        clips: Shape of the batch: clips, frames, height, width.
        lengths: Of the masks, one a strategy.
        precision: As Lightning calls it.
        device: A "cpu" has ways of its own for attention in bf16; others are taken to have fused attention.
        recompute: Compute blocks again in the backward pass; None as the objective's blocks say.
    """
    own = dict(OWN_OPERATORS)
    trial = _trial(objective, lengths, recompute)
    with FakeTensorMode(allow_non_fake_inputs=True), KnownNumbers():
        trial.to_empty(device="cpu")
        with FlopCounterMode(display=False, custom_mapping=own) as forward:
            loss = _loss(trial, _batch(clips), precision, device)
        with FlopCounterMode(display=False, custom_mapping=own) as backward:
            loss.backward()
    counts, name = forward.get_flop_counts(), type(trial).__name__
    return StepFlops(
        parts={part: _flops_of(counts, f"{name}.{part}") for part in parts_of(objective)},
        forward=forward.get_total_flops(),
        backward=backward.get_total_flops(),
    )


def dry_memory(
    objective: Objective,
    clips: ClipsShape,
    lengths: Sequence[MaskLengths],
    *,
    precision: PrecisionName = "32-true",
    device: Device = "cuda",
    recompute: bool | None = None,
) -> StepMemory:
    """Memory of a training step; arguments as of `dry_flops`."""
    trial = _trial(objective, lengths, recompute)
    live = LiveBytes()
    with FakeTensorMode(allow_non_fake_inputs=True), KnownNumbers(), live:
        trial.to_empty(device="cpu")
        optimizer = _after_a_step(trial)
        state, live.peak = live.now, live.now
        # Lightning lets the gradients of the step before go after the forward pass
        batch = _batch(clips)
        loss = _loss(trial, batch, precision, device)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if pairs := trial.ema_pairs():
            ema_update(pairs, 0.5)
    return StepMemory(state=state, peak=live.peak)


class KnownNumbers(TorchDispatchMode):
    """Answers where code asks a tensor without numbers for one: 1 will do for a token's id and for AdamW's steps."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out an operation, or answer."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1
        return func(*args, **(kwargs or {}))


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that operations have made and that are still held, and the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out an operation and count what it made."""
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


def parts_of(objective: Objective) -> dict[str, nn.Module]:
    """Return the networks of an objective that are counted by themselves."""
    return {name: network for name in PARTS if (network := getattr(objective, name)) is not None}


def _after_a_step(trial: Objective) -> torch.optim.Optimizer:
    """AdamW as a step leaves it: with its averages, and the gradients not yet let go."""
    groups = decay_groups(*trial.trained().values())
    for weight in (weight for group in groups for weight in group["params"]):
        weight.grad = torch.zeros_like(weight)
    optimizer = torch.optim.AdamW(groups)
    optimizer.step()
    return optimizer


def _trial(objective: Objective, lengths: Sequence[MaskLengths], recompute: bool | None) -> Objective:
    """A copy that draws no masks."""
    trial = copy.deepcopy(objective).train()
    for weight in trial.parameters():
        weight.data = weight.data.float()
    trial.masks = [_Given(each) for each in lengths]
    for block in (module for module in trial.modules() if isinstance(module, Block)):
        block.recompute = block.recompute if recompute is None else recompute
    return trial


def _batch(clips: ClipsShape) -> ClipBatch:
    num_clips, num_frames, height, width = clips
    rows = torch.zeros(num_clips, dtype=torch.long)
    return ClipBatch(
        video=torch.zeros(num_clips, CHANNELS, num_frames, height, width), label=rows, index=rows
    )


def _loss(objective: Objective, batch: ClipBatch, precision: PrecisionName, device: Device) -> Tensor:
    with _autocast(precision, device):
        return objective(batch, torch.Generator()).loss


def _flops_of(counts: dict[str, dict[Any, int]], network: str) -> int:
    """Of a network; where a method of it other than `forward` was called, of the topmost parts that were."""
    within = [name for name in counts if f"{name}.".startswith(f"{network}.")]
    topmost = [name for name in within if not any(name.startswith(f"{other}.") for other in within)]
    return sum(sum(counts[name].values()) for name in topmost)


def _autocast(precision: PrecisionName, device: Device) -> AbstractContextManager[Any]:
    """Mixed precision of two bytes."""
    if precision == "32-true":
        return nullcontext()
    return torch.autocast("cpu", dtype=_two_bytes(precision, device))


def _two_bytes(precision: PrecisionName, device: Device) -> torch.dtype:
    """fp16 stands for both kinds on a GPU, for a CPU has ways of its own in bf16."""
    return torch.bfloat16 if device == "cpu" and precision != "16-mixed" else torch.float16


def _attention_flops(query: Any, key: Any, value: Any, out_shape: Any = None) -> int:
    """Two products, each of all queries with all keys."""
    rows, heads, length, width = query
    return 4 * rows * heads * length * length * width


def _attention_backward_flops(gradient: Any, query: Any, key: Any, value: Any, out_shape: Any = None) -> int:
    """Five products: the scores again, and the gradients of weights, queries, keys and values."""
    rows, heads, length, width = query
    return 10 * rows * heads * length * length * width


# of a CPU in bf16; torch knows its own operators
OWN_OPERATORS = {
    torch.ops.vjepa.attend_in_blocks: _attention_flops,
    torch.ops.vjepa.attend_in_blocks_backward: _attention_backward_flops,
}
