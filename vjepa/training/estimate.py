"""The cost of a recipe: FLOPs and memory of its steps, and the batch that fits into a device's memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from vjepa.layers import Block
from vjepa.objectives import Objective
from vjepa.training.dry_run import Clips, Device, DryRun, drawn_lengths, parts_of
from vjepa.training.module import PretrainModule
from vjepa.training.precision import PrecisionName

GIGA, TERA = 1e9, 1e12
USABLE = 0.9  # of a device's memory; the driver, scratch memory and the allocator take the rest
GATHERED = 2  # blocks that FSDP2 has gathered at once: the current one and the next
Strategy = Literal["single", "ddp", "fsdp2"]


@dataclass(frozen=True)
class Cost:
    """FLOPs per clip, and bytes on one device for the batches that need most.

    `state_bytes` exist between steps; a step adds `fixed_bytes`, and `clip_bytes` for each clip of `batch_size`.
    """

    recompute: bool
    flops: float
    state_bytes: int
    fixed_bytes: float
    clip_bytes: float
    batch_size: int


def estimate_costs(
    module: PretrainModule, shapes: Mapping[Clips, float], precision: PrecisionName, device: Device
) -> tuple[dict[str, Any], list[Cost]]:
    """Return the figures of a recipe, and its cost with blocks kept and with blocks recomputed.

    Weights may be on the meta device; `shapes` come from `clip_shapes`, and `device` is that of `DryRun`.
    """
    objective = module.objective
    grids = [objective.target_encoder.grid_of(torch.zeros(clips, device="meta")) for clips in shapes]
    means: list[DryRun] = []
    longest: list[DryRun] = []
    for clips, grid in zip(shapes, grids, strict=True):
        mean, most = drawn_lengths(objective.masks, grid, clips[0], module.seed)
        means.append(DryRun(objective, clips, mean, precision, device))
        longest.append(DryRun(objective, clips, most, precision, device))
    figures: dict[str, float] = {
        f"{name}_parameters": _count(part.parameters()) for name, part in parts_of(objective).items()
    }
    figures["trainable_parameters"] = _count(p for p in objective.parameters() if p.requires_grad)
    figures["tokens_per_clip"] = len(grids[0])
    for i, each in enumerate(means[0].masks):
        figures[f"context_tokens_mask{i}"] = each.context
        figures[f"target_tokens_mask{i}"] = each.target * each.targets
    costs: list[Cost] = []
    for recompute in (False, True):
        flops = [replace(run, recompute=recompute).flops() for run in means]
        costs.append(_cost(shapes, flops, [replace(run, recompute=recompute) for run in longest]))
        if not recompute:
            per_clip = means[0].clips[0] * GIGA
            figures |= {f"{name}_gflop_per_clip": n / per_clip for name, n in flops[0].items()}
    return figures, costs


def plan_training(
    objective: Objective, cost: Cost, strategy: Strategy, *, devices: int, memory_gb: float, clips: int
) -> dict[str, Any]:
    """Return, by name, what each device needs, and the batch and accumulation for `clips` per step on all devices."""
    states = _state_bytes(objective, cost, strategy, devices)
    activations = cost.fixed_bytes + cost.clip_bytes * cost.batch_size
    room = USABLE * memory_gb * GIGA - states - cost.fixed_bytes
    most, share = max(int(room / cost.clip_bytes), 0), math.ceil(clips / devices)
    accumulate = math.ceil(share / most) if most else None
    return {
        "strategy": strategy,
        "blocks": "recomputed" if cost.recompute else "kept",
        "states_gb": states / GIGA,
        "activations_gb": activations / GIGA,
        "peak_gb": (states + activations) / GIGA,
        "batch_that_fits": most,
        "batch": math.ceil(share / accumulate) if accumulate else 0,
        "accumulate": accumulate,
        "tflop_per_step": cost.flops * clips / TERA,
    }


def _cost(shapes: Mapping[Clips, float], flops: Sequence[dict[str, int]], runs: Sequence[DryRun]) -> Cost:
    """Return the mean FLOPs per clip of all shapes, and the memory of the shape that needs most."""
    memory = [run.memory() for run in runs]
    (between, peak), run = max(zip(memory, runs, strict=True), key=lambda held: held[0][1])
    batch_size = run.clips[0]
    _, peak_of_two = replace(run, clips=(2 * batch_size, *run.clips[1:])).memory()
    clip_bytes = (peak_of_two - peak) / batch_size
    per_step = sum(s * (n["forward"] + n["backward"]) for s, n in zip(shapes.values(), flops, strict=True))
    return Cost(
        recompute=run.recompute,
        flops=per_step / sum(share * clips[0] for clips, share in shapes.items()),
        state_bytes=between,
        fixed_bytes=max(peak - between - clip_bytes * batch_size, 0.0),
        clip_bytes=clip_bytes,
        batch_size=batch_size,
    )


def _state_bytes(objective: Objective, cost: Cost, strategy: Strategy, devices: int) -> float:
    """Return the bytes per device between steps."""
    if strategy == "single":
        return float(cost.state_bytes)
    if strategy == "ddp":  # it sends copies of the gradients
        return float(cost.state_bytes) + _num_bytes(p for p in objective.parameters() if p.requires_grad)
    blocks = [_num_bytes(module.parameters()) for module in objective.modules() if isinstance(module, Block)]
    outside = _num_bytes(objective.parameters()) - sum(blocks)  # gathered for the whole step
    return cost.state_bytes / devices + GATHERED * max(blocks, default=0) + outside


def _count(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _num_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
