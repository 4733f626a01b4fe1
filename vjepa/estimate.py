"""The verb `estimate`: what a recipe costs, before anybody pays for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule, Trainer

from vjepa.commands.fit import FitCLI, started
from vjepa.commands.report import Report, write_result
from vjepa.data import VideoDataModule
from vjepa.data.loading.mixture import MixturePart
from vjepa.errors import UsageError
from vjepa.layers import Block
from vjepa.objectives import Objective
from vjepa.training import PretrainModule
from vjepa.training.dry_run import (
    CHANNELS,
    MaskLengths,
    StepFlops,
    drawn_lengths,
    dry_flops,
    dry_memory,
    parts_of,
)
from vjepa.training.precision import precision_name
from vjepa.types import TokenGrid

GIGA, TERA = 1e9, 1e12
USABLE = (
    0.9  # of a device's memory; the rest goes to its context, to scratch and to what the allocator wastes
)
GATHERED = 2  # blocks that FSDP2 holds whole at once: the one at work and the one fetched ahead
ANY_FRAME = (CHANNELS, 64, 64)  # transforms cut all frames to one size
SECONDS_PER_DAY = 86400
Strategy = Literal["single", "ddp", "fsdp2"]


@dataclass(frozen=True)
class ClipShape:
    """Clips of one data set: `share` of the batches, `batch_size` clips of `num_frames` x `height` x `width`."""

    share: float
    batch_size: int
    num_frames: int
    height: int
    width: int

    def batch(self, times: int = 1) -> tuple[int, int, int, int]:
        """Shape of a batch, `times` as large."""
        return (times * self.batch_size, self.num_frames, self.height, self.width)


@dataclass(frozen=True)
class Cost:
    """With or without blocks computed again: FLOPs a clip, and memory of the heaviest batches on one device.

    `fixed_bytes` are held beside the states whatever the batch, `clip_bytes` for each clip of `batch_size`;
    `gradient_bytes` are part of the states.
    """

    recompute: bool
    flops: float
    state_bytes: int
    gradient_bytes: int
    fixed_bytes: float
    clip_bytes: float
    batch_size: int


class Estimator(Trainer):
    """In the place of the trainer: its flags are the trainer's, and nothing is trained."""

    recipe: Any
    outcome: Report

    def estimate(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        *,
        gpus: int = 1,
        memory: float = 80.0,
        peak_tflops: float = 312.0,
        mfu: float = 0.35,
        clips_per_step: int | None = None,
        out: Path | None = None,
    ) -> None:
        """Parameters, tokens, FLOPs, memory, the batch that fits and the days that a recipe takes.

        Args:
            model: Of the recipe.
            datamodule: Of the recipe.
            gpus: Devices in all.
            memory: Memory of a device, in GB.
            peak_tflops: What a device does at most, in TFLOP/s, in the recipe's precision. The default is that of
                an A100 in bf16; an H100 has 989, in fp32 by TF32 they have 156 and 495.
            mfu: Share of that which training reaches, data and communication included. The default is what
                well-kept runs of such networks reach; measure your own.
            clips_per_step: Clips of an optimiser step on all devices; by default the recipe's batch size on all of
                its devices (those of this estimate, where it says auto), times its accumulation.
            out: Folder for result.json.
        """
        assert isinstance(model, PretrainModule) and isinstance(datamodule, VideoDataModule)
        given = {"gpus": gpus, "memory": memory, "peak_tflops": peak_tflops, "mfu": mfu}
        for name, value in {
            **given,
            "clips_per_step": 1 if clips_per_step is None else clips_per_step,
        }.items():
            if not 0 < value < float("inf"):
                raise UsageError(f"--{name} is {value:g}. Give a number above 0.")
        if mfu > 1:
            raise UsageError(f"--mfu is {mfu:g}. Give a share of 1, such as 0.35.")
        if self.recipe.accumulate_grad_batches < 1:
            batches = self.recipe.accumulate_grad_batches
            raise UsageError(f"--trainer.accumulate_grad_batches is {batches}. Give 1 or more.")
        clips = clips_per_step or _clips_per_step(self.recipe, datamodule.batch_size, gpus)
        figures, costs = _costs(model, clip_shapes(datamodule), self.recipe)
        rows = [
            {
                **_fit(model.objective, cost, strategy, gpus=gpus, memory=memory, clips=clips),
                "days": _days(cost.flops * clips, self.recipe.max_steps, gpus * peak_tflops * TERA * mfu),
            }
            for strategy in _strategies(gpus)
            for cost in costs
        ]
        figures |= {"clips_per_step": clips, "steps": self.recipe.max_steps}
        self.outcome = Report(title="estimate", rows=rows, figures=figures)
        if out is not None:
            settings = {**given, "clips_per_step": clips}
            write_result(out, figures={**figures, "plans": rows}, settings=settings, seed=model.seed)


class EstimateCLI(FitCLI):
    """The command line of `fit`, whose recipe is weighed and not run."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The one verb."""
        return {"estimate": {"model", "datamodule"}}

    def find_checkpoint(self) -> None:
        """None is needed."""

    def instantiate_classes(self) -> None:
        """Build the recipe's networks without memory for weights."""
        with torch.device("meta"):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """An `Estimator`, which this machine can always build, whatever devices the recipe wants."""
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        estimator = Estimator(accelerator="cpu", devices=1, enable_model_summary=False, **quiet)
        estimator.recipe = self._get(self.config_init, "trainer")
        return estimator

    def after_estimate(self) -> None:
        """Hand over what was found."""
        self.outcome = cast("Estimator", self.trainer).outcome


def main(verb: str, argv: Sequence[str]) -> Report:
    """Run `vjepa estimate`.

    Args:
        verb: "estimate".
        argv: Its flags, as typed.
    """
    return started(EstimateCLI, verb, argv, trainer_class=Estimator).outcome


def clip_shapes(datamodule: VideoDataModule) -> list[ClipShape]:
    """What the batches of a recipe are, without its data: of each part of a mixture, as its transform makes them."""
    parts = datamodule.parts or [MixturePart(source="")]
    total = sum(part.weight for part in parts)
    shapes = []
    for part in parts:
        sampler = part.sampler or datamodule.sampler
        frames = torch.zeros(sampler.num_frames, *ANY_FRAME, dtype=torch.uint8)
        clip = (part.transform or datamodule.transform).centred()(frames, np.random.default_rng(0))
        batch_size = part.batch_size or datamodule.batch_size
        shapes.append(ClipShape(part.weight / total, batch_size, *clip.shape[1:]))
    alike = {replace(shape, share=0.0) for shape in shapes}
    return [
        replace(kind, share=sum(s.share for s in shapes if replace(s, share=0.0) == kind))
        for kind in sorted(alike, key=ClipShape.batch, reverse=True)
    ]


def _costs(model: PretrainModule, shapes: list[ClipShape], recipe: Any) -> tuple[dict[str, Any], list[Cost]]:
    """Figures of the recipe as it stands, and its cost without and with blocks computed again."""
    objective = model.objective
    how: dict[str, Any] = {
        "precision": precision_name(recipe.precision),
        "device": "cpu" if recipe.accelerator == "cpu" else "cuda",
    }
    lengths = [_lengths(model, shape) for shape in shapes]
    figures: dict[str, Any] = _sizes(objective) | _tokens(lengths[0][0], objective, shapes[0])
    costs = []
    clips = sum(shape.share * shape.batch_size for shape in shapes)  # of a batch, on average
    for recompute in (False, True):
        how["recompute"] = recompute
        counted = [dry_flops(objective, s.batch(), n[0], **how) for s, n in zip(shapes, lengths, strict=True)]
        held = [
            [dry_memory(objective, s.batch(times), n[1], **how) for times in (1, 2)]
            for s, n in zip(shapes, lengths, strict=True)
        ]
        heaviest = max(range(len(shapes)), key=lambda i: held[i][0].peak)
        once, twice = held[heaviest]
        batch_size = shapes[heaviest].batch_size
        clip_bytes = (twice.peak - once.peak) / batch_size
        costs.append(
            Cost(
                recompute=recompute,
                flops=sum(s.share * c.total for s, c in zip(shapes, counted, strict=True)) / clips,
                state_bytes=once.state,
                gradient_bytes=_num_bytes(p for p in objective.parameters() if p.requires_grad),
                fixed_bytes=max(once.peak - once.state - clip_bytes * batch_size, 0.0),
                clip_bytes=clip_bytes,
                batch_size=batch_size,
            )
        )
        if not recompute:
            figures |= _gigaflops(counted[0], shapes[0])
    return figures, costs


def _strategies(gpus: int) -> tuple[Strategy, ...]:
    return ("single",) if gpus == 1 else ("ddp", "fsdp2")


def _fit(
    objective: Objective, cost: Cost, strategy: Strategy, *, gpus: int, memory: float, clips: int
) -> dict[str, Any]:
    """A row: what a device holds, and the batch and accumulation that give `clips` a step."""
    states = _state_bytes(objective, cost, strategy, gpus)
    peak = states + cost.fixed_bytes + cost.clip_bytes * cost.batch_size
    room = USABLE * memory * GIGA - states - cost.fixed_bytes
    most = max(int(room / cost.clip_bytes), 0)
    share = math.ceil(clips / gpus)
    accumulate = math.ceil(share / most) if most else None
    return {
        "strategy": strategy,
        "blocks": "recomputed" if cost.recompute else "kept",
        "states_gb": _short(states / GIGA),
        "activations_gb": _short((peak - states) / GIGA),
        "peak_gb": _short(peak / GIGA),
        "batch_that_fits": most,
        "batch": math.ceil(share / accumulate) if accumulate else 0,
        "accumulate": accumulate,
        "tflop_per_step": _short(cost.flops * clips / TERA),
    }


def _state_bytes(objective: Objective, cost: Cost, strategy: Strategy, gpus: int) -> float:
    """Weights, gradients, AdamW's averages, target encoder, and what the strategy adds to them."""
    if strategy == "single":
        return float(cost.state_bytes)
    if strategy == "ddp":  # it sends copies of the gradients
        return float(cost.state_bytes + cost.gradient_bytes)
    blocks = [_num_bytes(module.parameters()) for module in objective.modules() if isinstance(module, Block)]
    outside = _num_bytes(objective.parameters()) - sum(blocks)  # gathered for the whole of a step
    return cost.state_bytes / gpus + GATHERED * max(blocks, default=0) + outside


def _lengths(model: PretrainModule, shape: ClipShape) -> tuple[list[MaskLengths], list[MaskLengths]]:
    return drawn_lengths(model.objective.masks, _grid(model.objective, shape), shape.batch_size, model.seed)


def _grid(objective: Objective, shape: ClipShape) -> TokenGrid:
    video = torch.zeros(1, CHANNELS, shape.num_frames, shape.height, shape.width, device="meta")
    return objective.target_encoder.grid_of(video)


def _sizes(objective: Objective) -> dict[str, int]:
    networks = parts_of(objective)
    return {
        **{
            f"{name}_parameters": sum(p.numel() for p in part.parameters()) for name, part in networks.items()
        },
        "trainable_parameters": sum(p.numel() for p in objective.parameters() if p.requires_grad),
    }


def _tokens(lengths: list[MaskLengths], objective: Objective, shape: ClipShape) -> dict[str, int]:
    """Tokens of a clip, and on average of each mask strategy's context and of all of its targets."""
    counted = {"tokens_per_clip": len(_grid(objective, shape))}
    for i, each in enumerate(lengths):
        counted[f"context_tokens_mask{i}"] = each.context
        counted[f"target_tokens_mask{i}"] = each.target * each.targets
    return counted


def _gigaflops(counted: StepFlops, shape: ClipShape) -> dict[str, float]:
    """Of one clip, by network, and of both passes."""
    parts = {**counted.parts, "forward": counted.forward, "backward": counted.backward}
    return {f"{name}_gflop_per_clip": _short(n / shape.batch_size / GIGA) for name, n in parts.items()}


def _clips_per_step(recipe: Any, batch_size: int, gpus: int) -> int:
    devices = recipe.devices
    if isinstance(devices, list):
        devices = len(devices) * recipe.num_nodes
    elif str(devices).isdecimal() and int(devices):  # a flag comes as text
        devices = int(devices) * recipe.num_nodes
    else:
        devices = gpus
    return batch_size * devices * recipe.accumulate_grad_batches


def _days(flops: float, steps: int, speed: float) -> float | None:
    """Of a run of `steps`; none where the recipe counts epochs."""
    return _short(flops * steps / speed / SECONDS_PER_DAY) if steps > 0 else None


def _num_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _short(number: float) -> float:
    """With the digits that an estimate deserves."""
    return float(f"{number:.4g}")
