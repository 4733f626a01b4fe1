"""Probes of finished runs against random init and a supervised encoder: one table, mean and deviation over runs.

python tools/probe_table.py --runs RUNDIR [RUNDIR ...] --labels appearance event --out DIR [--few 20]

A RUNDIR is the log folder of a `vjepa fit`, with config.yaml and export/. The supervised encoder is of the same
make and starts from the weights of the random twin; it is trained end to end on the run's clips, flips, batch
size, precision and clipping, for the run's number of steps. Its learning rate is chosen once a label, on the
first run, by a held-out fifth of the training clips. DIR/result.json is written after each run.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jaxtyping import Float
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.checkpoints import load_encoder
from vjepa.commands.fit import QUIET
from vjepa.commands.report import write_result
from vjepa.data import Manifest, MixturePart, VideoDataModule, read_manifest
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.encode import Precision
from vjepa.features.tokens import tokens_of
from vjepa.models import VideoEncoder
from vjepa.optim import WarmupCosine, decay_groups
from vjepa.probes import LabelledTokens, ProbeKind, fit_probe, random_init_like
from vjepa.probes.fitting.splits import held_out_split
from vjepa.probes.linear import pool_tokens
from vjepa.types import ClipBatch

log = logging.getLogger("probe_table")

KINDS: tuple[ProbeKind, ...] = ("linear", "attentive")
LRS = (1e-3, 3e-4)
WEIGHT_DECAY = 0.05
WARMUP = 0.1  # share of the steps
COUNTS = ("all", "few")
Scores = dict[str, dict[str, Any]]


class Supervised(L.LightningModule):
    """An encoder and a linear map of its tokens' mean and maximum, standardised, trained end to end with labels."""

    def __init__(self, *, encoder: VideoEncoder, num_classes: int, lr: float, num_steps: int) -> None:
        super().__init__()
        width = 2 * encoder.embed_dim
        self.encoder = encoder.train()
        self.head = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, num_classes))
        self.lr, self.num_steps = lr, num_steps

    def forward(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b classes"]:
        """Clips (B, C, T, H, W) to logits (B, classes)."""
        return self.head(pool_tokens(self.encoder(video).float(), "mean_max"))

    def configure_optimizers(self) -> Any:
        """AdamW, warm-up and half a cosine to 0."""
        groups = decay_groups(self.encoder, self.head)
        decays = [group | {"weight_decay": WEIGHT_DECAY if group["decay"] else 0.0} for group in groups]
        optimizer = torch.optim.AdamW(decays, lr=self.lr)
        shape = WarmupCosine(peak=1.0, warmup=WARMUP)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: shape.value(s, self.num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        logits = self(batch.video)
        right = (logits.argmax(dim=1) == batch.label).float().mean()
        self.log("train", right, on_step=False, on_epoch=True, batch_size=len(batch))
        return F.cross_entropy(logits, batch.label)

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Share of right answers."""
        right = self(batch.video).argmax(dim=1) == batch.label
        self.log("top1", right.float().mean(), on_epoch=True, batch_size=len(batch))


@dataclass(frozen=True)
class Run:
    """A finished run: where it is and what it was made with."""

    folder: Path
    config: dict[str, Any]

    @property
    def seed(self) -> int:
        """Of everything in the run."""
        return int(self.config["seed_everything"])

    def data(self) -> VideoDataModule:
        """The run's clips, as its recipe says; nothing is set up yet."""
        parser = ArgumentParser()
        parser.add_class_arguments(VideoDataModule, "data", skip={"seed"})  # linked to seed_everything
        parsed = parser.parse_object({"data": self.config["data"]})
        data: VideoDataModule = parser.instantiate(parsed).data
        data.seed = self.seed
        return data

    def trainer(self, num_steps: int) -> L.Trainer:
        """A trainer of the run's arithmetic, which validates once, at the end."""
        kept = ("accelerator", "precision", "gradient_clip_val", "accumulate_grad_batches")
        return L.Trainer(
            **{name: self.config["trainer"][name] for name in kept},
            devices=1,
            max_steps=num_steps,
            max_epochs=-1,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )


def open_run(folder: Path) -> Run:
    """A run by its folder."""
    if not (folder / "config.yaml").is_file() or not (folder / "export").is_dir():
        raise SystemExit(
            f"{folder}: no config.yaml or export. Give the log_dir that a `vjepa fit` ended with."
        )
    return Run(folder, yaml.safe_load((folder / "config.yaml").read_text()))


def manifests(data: VideoDataModule, label: str) -> tuple[Manifest, Manifest]:
    """Training and validation clips with the classes of `label`."""
    train = read_manifest(str(data.sources["train"]), root=data.root, label_column=label)
    val = str(data.sources["val"])
    return train, read_manifest(val, root=data.root, label_column=label, label_names=train.label_names)


def probe_run(run: Run, data: VideoDataModule, labels: list[str], few: int) -> dict[str, Scores]:
    """Top-1 by label, then by encoder and probe, then by number of labels."""
    encoder = load_encoder(run.folder / "export")
    precision: Precision = "bf16" if "bf16" in str(run.config["trainer"]["precision"]) else "fp32"
    found: dict[str, Scores] = {label: {} for label in labels}
    for name, network in (("JEPA", encoder), ("random init", random_init_like(encoder, seed=run.seed))):
        options: dict[str, Any] = {"num_workers": data.num_workers, "precision": precision}
        train = tokens_of(network, data.clips("train"), ClipSpec(), **options)
        val = tokens_of(network, data.clips("val"), ClipSpec(), **options)
        for label, kind, few_or_all in itertools.product(labels, KINDS, COUNTS):
            classes, tested = manifests(data, label)
            result = fit_probe(
                kind,
                LabelledTokens.of(train, classes),
                LabelledTokens.of(val, tested),
                num_classes=len(classes.label_names),
                num_per_class=few if few_or_all == "few" else None,
                seed=run.seed,
            )
            log.info("%s: %s, %s, %s labels: %s", run.folder, label, name, few_or_all, result)
            row = found[label].setdefault(f"{name}, {kind} probe", {"chance": result.chance})
            row |= {few_or_all: result.top1, f"{few_or_all}_converged": result.converged}
    return found


def train_supervised(
    run: Run, train: Manifest, val: Manifest, *, lr: float, num_steps: int
) -> dict[str, Any]:
    """Top-1 on `val` of an encoder trained end to end on `train`, and on `train` in its last epoch."""
    data = run.data()
    data.train_manifest, data.val_manifest, data.world = train, val, None
    data.parts = [MixturePart(source=train.source)]
    encoder = random_init_like(load_encoder(run.folder / "export"), seed=run.seed)
    torch.manual_seed(run.seed)
    module = Supervised(encoder=encoder, num_classes=len(train.label_names), lr=lr, num_steps=num_steps)
    trainer = run.trainer(num_steps)
    trainer.fit(module, datamodule=data)
    seen = trainer.callback_metrics.get("train")  # of no whole epoch: none
    trainer.limit_val_batches = 1.0
    (measured,) = trainer.validate(module, datamodule=data, verbose=False)
    log.info("%s: supervised, lr %g: top-1 %.3f, in training %s", run.folder, lr, measured["top1"], seen)
    return {"all": measured["top1"], "train": None if seen is None else float(seen), "lr": lr}


def choose_lr(run: Run, train: Manifest, num_steps: int) -> float:
    """The learning rate that is best on a held-out fifth of the training clips, in whole groups."""
    labels, groups = torch.tensor([row.label for row in train.rows]), [row.group for row in train.rows]
    split = held_out_split(labels, groups, torch.Generator().manual_seed(run.seed))
    fitted, tested = (replace(train, rows=tuple(train.rows[i] for i in part.tolist())) for part in split)
    trials = [train_supervised(run, fitted, tested, lr=lr, num_steps=num_steps) for lr in LRS]
    return float(max(trials, key=lambda trial: trial["all"])["lr"])


def summary(runs: list[dict[str, Scores]]) -> dict[str, Scores]:
    """Mean and deviation over the runs, by label, row and number of labels."""

    def over_runs(label: str, row: str, count: str) -> dict[str, float]:
        each = [run[label][row][count] for run in runs]
        return {"mean": statistics.mean(each), "deviation": statistics.stdev(each) if len(each) > 1 else 0.0}

    return {
        label: {
            row: {n: over_runs(label, row, n) for n in COUNTS if n in cells} for row, cells in rows.items()
        }
        for label, rows in runs[0].items()
    }


def markdown(table: dict[str, Scores], *, few: int, num_runs: int) -> str:
    """The table, and for each label what the best probe of JEPA gains over the best at random init."""
    lines = [f"Top-1 in %, mean ± deviation of {num_runs} runs.", ""]
    for label, rows in table.items():
        lines += [f"| {label} | all labels | {few} a class |", "|---|---|---|"]
        for row, cells in rows.items():
            shown = (
                f"{100 * cells[n]['mean']:.1f} ± {100 * cells[n]['deviation']:.1f}" if n in cells else ""
                for n in COUNTS
            )
            lines.append(f"| {row} | {' | '.join(shown)} |")
        best = {
            (name, count): max(rows[f"{name}, {kind} probe"][count]["mean"] for kind in KINDS)
            for name, count in itertools.product(("JEPA", "random init"), COUNTS)
        }
        gains = (f"{100 * (best['JEPA', count] - best['random init', count]):+.1f}" for count in COUNTS)
        lines += [f"| best JEPA less best random init | {' | '.join(gains)} |", ""]
    return "\n".join(lines)


def run_table(given: argparse.Namespace) -> str:
    """Probe every run and train the supervised encoders; write what is known after each run."""
    done: list[dict[str, Scores]] = []
    lrs: dict[str, float] = {}
    for run in map(open_run, given.runs):
        data = run.data()
        data.setup()
        scores = probe_run(run, data, given.labels, given.few)
        configured = int(run.config["trainer"]["max_steps"])
        num_steps = configured if given.supervised_steps is None else given.supervised_steps
        if num_steps < 0:
            raise SystemExit(f"{run.folder}: the run counts epochs, not steps. Give --supervised_steps.")
        for label in given.labels if num_steps else []:
            train, val = manifests(data, label)
            lrs[label] = lrs.get(label) or choose_lr(run, train, num_steps)
            scores[label]["supervised"] = train_supervised(
                run, train, val, lr=lrs[label], num_steps=num_steps
            )
        done.append(scores)
        figures = {"mean_and_deviation": summary(done), "runs": done}
        write_result(given.out, figures=figures, settings=vars(given), seed=run.seed)
    return markdown(summary(done), few=given.few, num_runs=len(done))


def main() -> None:
    """Print the table and write it beside result.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", nargs="+", default=["appearance", "event"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--few", type=int, default=20, help="labels a class of the second column")
    parser.add_argument("--supervised_steps", type=int, help="default: the run's own; 0 trains none")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in ("lightning.pytorch", "lightning.fabric", "vjepa.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for noise in QUIET:
        warnings.filterwarnings("ignore", message=noise)
    table = run_table(given)
    (given.out / "table.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
