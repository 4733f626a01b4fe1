"""Verdicts of runs that are known to be healthy or broken, on the embedded world at the quickstart's size.

python tools/health_table.py --seed 100 --steps 300 --out DIR

Runs the networks, masks and schedules of configs/quickstart.yaml (schedules of 1500 steps, of which
--steps are run) on clips of the world that are read once. A broken run is damaged from its first step, or after
--damage_at steps of a healthy run, and ends with the second verdict in turn that is not healthy. Prints one row a run,
and writes DIR/result.json and each run's figures.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from vjepa.commands.fit import QUIET
from vjepa.commands.report import write_result
from vjepa.data import TrainTransform, VideoDataModule
from vjepa.data.sampling import ClipSampler
from vjepa.masks import Causal, MaskStrategy, RandomTubes, TubeBlocks
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import LatentPrediction
from vjepa.optim import Constant, Cosine, Linear, Schedule, WarmupCosine
from vjepa.training import HealthVerdict, PretrainModule
from vjepa.types import ClipBatch, MaskPair, TokenGrid
from vjepa.worlds import WorldConfig

log = logging.getLogger("health_table")

TOTAL_STEPS = 1500  # of the quickstart's schedules
BATCH_SIZE = 16  # a quarter of the quickstart's: ten runs in minutes
LOG_EVERY = 10
ROTARY: dict[str, Any] = {"position": "rope_interleaved"}


class HidesNothing(MaskStrategy):
    """The targets are seen: every token is context and target at once."""

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """See `MaskStrategy.sample`."""
        ids = torch.arange(len(grid)).repeat(batch_size, 1)
        return MaskPair(context=ids, target=ids)


class NoStopGradient(LatentPrediction):
    """Targets of the context encoder, and the loss is free to pull them to the predictions."""

    def targets(self, video: Tensor) -> Tensor:
        """See `LatentPrediction.targets`."""
        tokens = self.context_encoder(video)
        return F.layer_norm(tokens.float(), tokens.shape[-1:])


@dataclass(frozen=True)
class Case:
    """A run: how it differs from the quickstart, what damages it, and the words its verdict should begin with."""

    name: str
    verdict: str = "healthy"
    lr: float = 0.002
    momentum: Schedule = field(default_factory=lambda: Linear(start=0.99, end=1.0))
    masks: Callable[[], list[MaskStrategy]] = field(default=lambda: quickstart_masks())
    damage: Callable[[PretrainModule, Batches], None] = field(default=lambda module, batches: None)


def quickstart_masks() -> list[MaskStrategy]:
    """The masks of configs/quickstart.yaml."""
    return [TubeBlocks(num_blocks=8, spatial_scale=(0.15, 0.15)), Causal(past=(0.25, 0.6))]


def schedule(peak: float) -> Schedule:
    """The quickstart's learning rate, with another peak."""
    return WarmupCosine(peak=peak, end=1e-5, warmup=0.1)


def no_average(module: PretrainModule, batches: Batches) -> None:
    """Targets of the encoder that is trained."""
    module.momentum_schedule = Constant(at=0.0)


def hundredfold_rate(module: PretrainModule, batches: Batches) -> None:
    """A hundred times the learning rate."""
    module.lr = schedule(0.2)


def no_stop_gradient(module: PretrainModule, batches: Batches) -> None:
    """The loss may pull the targets to the predictions."""
    module.objective.__class__ = NoStopGradient


def masks_hide_nothing(module: PretrainModule, batches: Batches) -> None:
    """Every token is seen."""
    module.objective.masks = [HidesNothing()]


def constant_video(module: PretrainModule, batches: Batches) -> None:
    """Clips of nothing."""
    batches.change = torch.zeros_like


CASES = (
    Case("quickstart"),
    Case("quickstart, other seed"),
    Case("half the learning rate", lr=0.001),
    Case("momentum 0.996", momentum=Constant(at=0.996)),
    Case("random tubes", masks=lambda: [RandomTubes(ratio=0.75)]),
    Case("EMA 0", "partial collapse", damage=no_average),
    Case("learning rate x100", "diverging", damage=hundredfold_rate),
    Case("no stop-gradient", "partial collapse", damage=no_stop_gradient),
    Case("masks hide nothing", "partial collapse", damage=masks_hide_nothing),
    Case("constant video", "partial collapse", damage=constant_video),
)


class DamageAt(L.Callback):
    """Breaks a run at a step, and notes the first verdict after it that is not healthy."""

    def __init__(self, case: Case, batches: Batches, step: int, judge: HealthVerdict) -> None:
        self.case, self.batches, self.step, self.judge = case, batches, step, judge
        self.before: str | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Damage."""
        if trainer.global_step == self.step:
            self.before = str(self.judge.verdict) if self.judge.history else None
            self.case.damage(cast("PretrainModule", pl_module), self.batches)


class StopAt(L.Callback):
    """Ends a run before its schedules end."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop at the step."""
        if trainer.global_step >= self.step:
            trainer.should_stop = True


class Batches(torch.utils.data.IterableDataset[ClipBatch]):
    """Batches drawn at random from clips in memory; `change` is what damage does to their pictures."""

    def __init__(self, clips: ClipBatch, seed: int) -> None:
        self.clips, self.seed = clips, seed
        self.change: Callable[[Tensor], Tensor] = torch.clone

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            rows = torch.randint(len(self.clips), (BATCH_SIZE,), generator=generator)
            video = self.change(self.clips.video[rows])
            yield replace(self.clips, video=video, label=self.clips.label[rows], index=self.clips.index[rows])


def world_clips(num_clips: int) -> ClipBatch:
    """Clips of the embedded world as the quickstart reads them."""
    data = VideoDataModule(
        world=WorldConfig(), sampler=ClipSampler(num_frames=16, fps=None), batch_size=BATCH_SIZE,
        transform=TrainTransform(size=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.5),
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    batches, count = [], 0
    for batch in data.train_dataloader():
        batches.append(batch.normalised())
        count += len(batch)
        if count >= num_clips:
            break
    return ClipBatch(
        *(torch.cat([getattr(b, name) for b in batches]) for name in ("video", "label", "index"))
    )


def run(case: Case, clips: ClipBatch, *, seed: int, steps: int, damage_at: int) -> dict[str, Any]:
    """Train one case; the verdict, the step it was made at, and the figures."""
    L.seed_everything(seed)
    objective = LatentPrediction(
        encoder=VideoEncoder(
            img_size=32, patch_size=8, num_frames=16, tubelet_size=4, embed_dim=128, depth=4, num_heads=2, **ROTARY
        ),
        predictor=lambda width: Predictor(width, embed_dim=64, depth=2, num_heads=1, **ROTARY),
        masks=case.masks(),
    )  # fmt: skip
    module = PretrainModule(
        objective=objective,
        lr=schedule(case.lr),
        weight_decay=Cosine(start=0.04, end=0.1),
        momentum=case.momentum,
        seed=seed,
    )
    batches = Batches(clips, seed)
    judge = HealthVerdict(stop_after=None if case.verdict == "healthy" else 2, keep=1000)
    damage = DamageAt(case, batches, damage_at, judge)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=TOTAL_STEPS, precision="bf16-mixed", gradient_clip_val=1.0, logger=False,
        log_every_n_steps=LOG_EVERY, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[damage, judge, StopAt(damage_at + steps)],
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    right = judge.verdict.judgement.startswith(case.verdict) and damage.before in (None, "healthy")
    return {
        "run": case.name, "step": trainer.global_step - damage_at, "before": damage.before,
        "verdict": str(judge.verdict), "right": right, "figures": judge.history,
    }  # fmt: skip


def main() -> None:
    """Run the cases, print their rows, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--damage_at", type=int, default=0)
    parser.add_argument("--clips", type=int, default=1024)
    parser.add_argument("--only", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noise in QUIET:
        warnings.filterwarnings("ignore", message=noise)
    arguments.out.mkdir(parents=True, exist_ok=True)
    clips, rows = world_clips(arguments.clips), []
    for number, case in enumerate(CASES):
        if case.name not in arguments.only:
            continue
        row = run(
            case, clips, seed=arguments.seed + number, steps=arguments.steps, damage_at=arguments.damage_at
        )
        (arguments.out / f"{number}.json").write_text(json.dumps(row.pop("figures"), indent=1))
        rows.append(row)
        log.info(
            "| %s | %d | %s | %s |", row["run"], row["step"], row["verdict"], "yes" if row["right"] else "NO"
        )
    figures = {"right": sum(row["right"] for row in rows), "of": len(rows), "runs": rows}
    write_result(
        arguments.out,
        figures=figures,
        settings={"steps": arguments.steps, "damage_at": arguments.damage_at},
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
