"""The verb `estimate`: the cost of a recipe, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningDataModule, LightningModule, Trainer

from vjepa.commands.fit import FitCLI, started
from vjepa.commands.report import Report, write_result
from vjepa.data import VideoDataModule
from vjepa.errors import UsageError
from vjepa.training import PretrainModule
from vjepa.training.clip_shapes import clip_shapes
from vjepa.training.dry_run import Device
from vjepa.training.estimate import TERA, Strategy, estimate_costs, plan_training
from vjepa.training.precision import precision_name

SECONDS_PER_DAY = 86400
KNOWN_TFLOPS = {312: "A100 in bf16", 156: "A100 in TF32", 989: "H100 in bf16", 495: "H100 in TF32"}


class Estimator(Trainer):
    """Takes the place of the trainer: its flags are the trainer's, but it only estimates."""

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
        """Estimate parameters, tokens, FLOPs, memory, the batch that fits and the days that a recipe takes.

        Args:
            model: Model of the recipe.
            datamodule: Data of the recipe.
            gpus: Number of devices.
            memory: Memory of a device, in GB.
            peak_tflops: Peak speed of a device in the recipe's precision, in TFLOP/s. The default is that of an A100
                in bf16; an H100 has 989. In fp32 by TF32 they have 156 and 495.
            mfu: Share of the peak that training reaches, data and communication included. The default is an
                assumption; measure your own in a short run.
            clips_per_step: Clips per optimiser step on all devices. By default the recipe's batch size, times its
                devices (`gpus` if they are "auto"), times its accumulation.
            out: Folder for result.json.
        """
        assert isinstance(model, PretrainModule) and isinstance(datamodule, VideoDataModule)
        settings = {"gpus": gpus, "memory": memory, "peak_tflops": peak_tflops, "mfu": mfu}
        _check({**settings, "clips_per_step": 1 if clips_per_step is None else clips_per_step}, self.recipe)
        clips = clips_per_step or _clips_per_step(self.recipe, datamodule.batch_size, gpus)
        device: Device = "cpu" if self.recipe.accelerator == "cpu" else "cuda"
        precision = precision_name(self.recipe.precision)
        figures, costs = estimate_costs(model, clip_shapes(datamodule), precision, device)
        steps, per_day = self.recipe.max_steps, SECONDS_PER_DAY * gpus * peak_tflops * TERA * mfu
        strategies: tuple[Strategy, ...] = ("single",) if gpus == 1 else ("ddp", "fsdp2")
        plans = [
            _rounded(
                plan_training(model.objective, cost, strategy, devices=gpus, memory_gb=memory, clips=clips)
                | {"days": cost.flops * clips * steps / per_day if steps > 0 else None}
            )
            for strategy in strategies
            for cost in costs
        ]
        figures = _rounded(figures | {"clips_per_step": clips, "steps": steps})
        self.outcome = Report(title=_title(settings), rows=_columns(plans), figures=figures)
        if out is not None:
            settings |= {"clips_per_step": clips}
            write_result(out, figures={**figures, "plans": plans}, settings=settings, seed=model.seed)


class EstimateCLI(FitCLI):
    """The command line of `fit`, whose recipe is estimated and not run."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the verb."""
        return {"estimate": {"model", "datamodule"}}

    def find_checkpoint(self) -> None:
        """Do nothing: no checkpoint is needed."""

    def instantiate_classes(self) -> None:
        """Build the recipe's networks without memory for weights."""
        with torch.device("meta"):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build an `Estimator`, which every machine can, regardless of the recipe's devices."""
        estimator = Estimator(accelerator="cpu", devices=1, barebones=True)
        estimator.recipe = self._get(self.config_init, "trainer")
        return estimator

    def after_estimate(self) -> None:
        """Store the report."""
        self.outcome = cast("Estimator", self.trainer).outcome


def main(verb: str, argv: Sequence[str]) -> Report:
    """Run `vjepa estimate`."""
    return started(EstimateCLI, verb, argv, trainer_class=Estimator).outcome


def _check(flags: dict[str, Any], recipe: Any) -> None:
    for name, value in flags.items():
        if not 0 < value < float("inf"):
            raise UsageError(f"--{name} is {value:g}. Give a number above 0.")
    if flags["mfu"] > 1:
        raise UsageError(f"--mfu is {flags['mfu']:g}. Give a share of 1, such as 0.35.")
    if (batches := recipe.accumulate_grad_batches) < 1:
        raise UsageError(f"--trainer.accumulate_grad_batches is {batches}. Give 1 or more.")


def _clips_per_step(recipe: Any, batch_size: int, gpus: int) -> int:
    given = recipe.devices
    per_node = len(given) if isinstance(given, list) else int(given) if str(given).isdecimal() else 0
    return batch_size * (per_node * recipe.num_nodes or gpus) * recipe.accumulate_grad_batches


def _title(settings: dict[str, Any]) -> str:
    """Return a line that names the assumed devices."""
    peak, share = settings["peak_tflops"], 100 * settings["mfu"]
    known = f" ({KNOWN_TFLOPS[int(peak)]})" if peak in KNOWN_TFLOPS else ""
    devices = f"{settings['gpus']} x {settings['memory']:g} GB"
    return f"estimate for {devices}, {peak:g} TFLOP/s{known} at {share:g} %"


def _columns(plans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a table with one column per plan, which is narrower than one with a row per plan."""
    return [
        {"plan": name, **{f"{plan['strategy']}, {plan['blocks']}": plan[name] for plan in plans}}
        for name in plans[0]
        if name not in ("strategy", "blocks")
    ]


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures with four digits, which is as exact as an estimate is."""
    return {name: float(f"{x:.4g}") if isinstance(x, float) else x for name, x in figures.items()}
