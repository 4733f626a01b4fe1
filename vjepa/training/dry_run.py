"""The cost of one training step, from a step over fake tensors, which have shapes but no data.

The step is the real one: forward, backward, AdamW and moving averages of the objective itself, under torch's
`FakeTensorMode`. `FlopCounterMode` counts FLOPs, `LiveBytes` the memory of all tensors. Neither sees the scratch
memory inside an operation or what an allocator wastes.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

from vjepa.layers import Block
from vjepa.masks import MaskStrategy
from vjepa.objectives import Objective
from vjepa.optim import decay_groups, ema_update
from vjepa.training.precision import PrecisionName
from vjepa.types import ClipBatch, MaskPair, TokenGrid

Device = Literal["cpu", "cuda"]
Clips = tuple[int, int, int, int, int]  # shape of a batch: clips, channels, frames, height, width
DRAWS = 32  # per mask strategy: lengths differ by batch


@dataclass(frozen=True)
class FixedLengths(MaskStrategy):
    """Masks of fixed lengths, `context` and `target` ids per row and `targets` rows per clip, whose ids are all 0."""

    context: int
    target: int
    targets: int = 1

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Return zeros."""
        rows = batch_size * self.targets
        return MaskPair(*(torch.zeros(rows, n, dtype=torch.long) for n in (self.context, self.target)))


@dataclass(frozen=True)
class DryRun:
    """A training step to be counted and not computed.

    Attributes:
        objective: Networks and loss; weights may be on any device, the meta device too. It does not change.
        masks: Lengths of the masks, one per strategy.
        device: A "cpu" has its own operators for attention in bf16; "cuda" is assumed to have fused attention.
        recompute: Compute blocks again in the backward pass.
    """

    objective: Objective
    clips: Clips
    masks: Sequence[FixedLengths]
    precision: PrecisionName = "32-true"
    device: Device = "cuda"
    recompute: bool = False

    def flops(self) -> dict[str, int]:
        """Return the FLOPs of the forward pass by network, of all "forward", and of "backward" with recomputation.

        A multiplication and an addition count as two.
        """
        trial = self._trial()
        with FakeTensorMode(allow_non_fake_inputs=True), KnownNumbers():
            trial.to_empty(device="cpu")
            with flop_counter() as forward:
                loss = self._loss(trial, self._batch())
            with flop_counter() as backward:
                loss.backward()
        counts, name = forward.get_flop_counts(), type(trial).__name__
        networks = {part: _flops_of(counts, f"{name}.{part}") for part in parts_of(trial)}
        return {**networks, "forward": forward.get_total_flops(), "backward": backward.get_total_flops()}

    def memory(self) -> tuple[int, int]:
        """Return the bytes that a device with all weights holds between steps, and at most within one.

        Between steps these are weights, buffers, gradients, AdamW's averages and the target encoder.
        """
        trial = self._trial()
        with FakeTensorMode(allow_non_fake_inputs=True), KnownNumbers(), LiveBytes() as live:
            trial.to_empty(device="cpu")
            groups = decay_groups(*trial.trained().values())
            for weight in (weight for group in groups for weight in group["params"]):
                weight.grad = torch.zeros_like(weight)
            optimizer = torch.optim.AdamW(groups)
            optimizer.step()  # from here on as after any step: with averages and the last gradients
            between, live.peak = live.now, live.now
            batch = self._batch()
            loss = self._loss(trial, batch)
            optimizer.zero_grad()  # Lightning frees the last gradients after the forward pass
            loss.backward()
            optimizer.step()
            if pairs := trial.ema_pairs():
                ema_update(pairs, 0.5)
        return between, live.peak

    def _trial(self) -> Objective:
        trial = copy.deepcopy(self.objective).train()
        trial.masks = list(self.masks)
        for block in (module for module in trial.modules() if isinstance(module, Block)):
            block.recompute = self.recompute
        return trial

    def _batch(self) -> ClipBatch:
        rows = torch.zeros(self.clips[0], dtype=torch.long)
        return ClipBatch(video=torch.zeros(self.clips), label=rows, index=rows)

    def _loss(self, objective: Objective, batch: ClipBatch) -> Tensor:
        # fp16 stands for bf16 of a GPU, which a CPU computes by operators of its own
        in_bf16 = self.device == "cpu" and self.precision == "bf16-mixed"
        dtype = torch.bfloat16 if in_bf16 else torch.float16
        with torch.autocast("cpu", dtype=dtype, enabled=self.precision != "32-true"):
            return objective(batch, torch.Generator()).loss


def parts_of(objective: Objective) -> dict[str, nn.Module]:
    """Return the networks of an objective that are counted by themselves."""
    names = ("target_encoder", "context_encoder", "predictor")
    return {name: network for name in names if (network := getattr(objective, name)) is not None}


def drawn_lengths(
    masks: Sequence[MaskStrategy], grid: TokenGrid, batch_size: int, seed: int = 0
) -> tuple[list[FixedLengths], list[FixedLengths]]:
    """Return the mean lengths of each strategy's masks, and those of the draw with the longest context.

    The shortest mask of a larger batch is shorter.
    """
    mean, longest = [], []
    for number, strategy in enumerate(masks):
        generator = torch.Generator().manual_seed(seed + number)
        pairs = [strategy.sample_apart(grid, batch_size, generator) for _ in range(DRAWS)]
        lengths = [(pair.context.shape[1], pair.target.shape[1]) for pair in pairs]
        targets = len(pairs[0].context) // batch_size
        context, target = (round(sum(n) / DRAWS) for n in zip(*lengths, strict=True))
        mean.append(FixedLengths(context, target, targets))
        longest.append(FixedLengths(*max(lengths), targets))
    return mean, longest


def flop_counter() -> FlopCounterMode:
    """Return torch's counter with the attention of a CPU, fused or ours, which some versions of torch do not count."""
    aten, ours = torch.ops.aten, torch.ops.vjepa
    forward = (aten._scaled_dot_product_flash_attention_for_cpu, ours.attend_in_blocks)
    backward = (aten._scaled_dot_product_flash_attention_for_cpu_backward, ours.attend_in_blocks_backward)
    counter = FlopCounterMode(display=False)
    counter.flop_registry |= dict.fromkeys(forward, sdpa_flop) | dict.fromkeys(backward, sdpa_backward_flop)
    return counter


class KnownNumbers(TorchDispatchMode):
    """Gives 1 for the value of a fake tensor: any token id and any step of AdamW will do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or return 1."""
        return 1 if func is torch.ops.aten._local_scalar_dense.default else func(*args, **(kwargs or {}))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations made and that still exist: `now`, and at most (`peak`)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count its results."""
        made = func(*args, **(kwargs or {}))
        for storage in [leaf.untyped_storage() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]:
            key = storage._cdata  # views share it
            if key not in self._counted:
                self._counted.add(key)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._forget, key, storage.nbytes())
        return made

    def _forget(self, key: int, nbytes: int) -> None:
        self._counted.remove(key)
        self.now -= nbytes


def _flops_of(counts: dict[str, dict[Any, int]], network: str) -> int:
    """Return the FLOPs of a network; if only methods other than `forward` were called, of its topmost parts."""
    within = [name for name in counts if f"{name}.".startswith(f"{network}.")]
    topmost = [name for name in within if not any(name.startswith(f"{other}.") for other in within)]
    return sum(sum(counts[name].values()) for name in topmost)
