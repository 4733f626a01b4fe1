"""Scaling efficiency: clips a second of two gloo ranks over twice those of one, a thread and a batch each.

    taskset -c 0,1 python tools/bench_scaling.py [--rounds 5] [--steps 30] [--strategy ddp] [--mask_batch all]

In each round one rank runs, then two ranks, then two runs that know nothing of each other: what the machine itself
leaves of the double when both of its cores are busy. ViT-tiny of 6 blocks on clips of 16 x 64 x 64 in memory, patches
of 8: 512 tokens, V-JEPA 2's masks.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.utils.data import DataLoader, Dataset

from vjepa.commands.fit import QUIET
from vjepa.masks import TubeBlocks
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import LatentPrediction
from vjepa.optim import Constant
from vjepa.training import PretrainModule
from vjepa.types import ClipBatch

BATCH, WARM_UP = 4, 5
ROTARY: dict[str, Any] = {"position": "rope_interleaved"}


class Clips(Dataset[ClipBatch]):
    """Batches of noise."""

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> ClipBatch:
        video = torch.randn(BATCH, 3, 16, 64, 64, generator=torch.Generator().manual_seed(index))
        rows = torch.arange(BATCH)
        return ClipBatch(video=video, label=rows, index=rows)


class Clock(L.Callback):
    """When each step began."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Look at the clock."""
        self.times.append(time.perf_counter())


def module(mask_batch: Literal["rank", "all"]) -> PretrainModule:
    """The networks, the same on every rank."""
    torch.manual_seed(0)
    return PretrainModule(
        objective=LatentPrediction(
            encoder=VideoEncoder(
                img_size=64, patch_size=8, num_frames=16, tubelet_size=2, embed_dim=192, depth=6, num_heads=3, **ROTARY
            ),
            predictor=lambda width: Predictor(width, embed_dim=96, depth=4, num_heads=3, **ROTARY),
            masks=[
                TubeBlocks(num_blocks=8, spatial_scale=(0.15, 0.15)),
                TubeBlocks(num_blocks=2, spatial_scale=(0.7, 0.7)),
            ],
        ),
        lr=Constant(at=1e-4),
        weight_decay=Constant(at=0.04),
        momentum=Constant(at=0.998),
        mask_batch=mask_batch,
    )  # fmt: skip


def work(ranks: int, given: argparse.Namespace) -> None:
    """Train, and write the seconds of a step."""
    torch.set_num_threads(1)
    chosen: dict[str, Strategy | str] = {
        "auto": "auto",
        "ddp": DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=True),
        "fsdp2": ModelParallelStrategy(save_distributed_checkpoint=False),
    }
    clock = Clock()
    trainer = L.Trainer(
        accelerator="cpu", devices=ranks, strategy=chosen[given.strategy if ranks > 1 else "auto"],
        max_steps=given.steps + WARM_UP, precision="bf16-mixed", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module(given.mask_batch), DataLoader(Clips(), batch_size=None))
    times = clock.times[WARM_UP:]
    (given.out / f"{trainer.global_rank}.json").write_text(
        json.dumps((times[-1] - times[0]) / (len(times) - 1))
    )


def start(ranks: int, given: argparse.Namespace, out: Path) -> subprocess.Popen[bytes]:
    """A run in processes of its own."""
    out.mkdir(parents=True)
    command = [sys.executable, __file__, "--work", str(ranks), "--steps", str(given.steps), "--out", str(out)]
    command += ["--strategy", given.strategy, "--mask_batch", given.mask_batch]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def rate(out: Path) -> float:
    """Clips a second of all ranks that wrote there."""
    return sum(BATCH / json.loads(path.read_text()) for path in out.glob("*.json"))


def main() -> None:
    """Measure in turns and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--strategy", choices=("ddp", "fsdp2"), default="ddp")
    parser.add_argument("--mask_batch", choices=("rank", "all"), default="rank")
    parser.add_argument("--work", type=int, help="be a run of so many ranks")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.work:
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        for noise in QUIET:
            warnings.filterwarnings("ignore", message=noise)
        work(given.work, given)
        return
    found: list[tuple[float, float, float]] = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as where:
            place = Path(where)
            for name, ranks in (("one", 1), ("two", 2)):
                if start(ranks, given, place / name).wait():
                    raise SystemExit(f"the run of {ranks} ranks failed")
            apart = [start(1, given, place / f"apart{k}") for k in range(2)]
            if any([run.wait() for run in apart]):
                raise SystemExit("the runs apart failed")
            one, two = rate(place / "one"), rate(place / "two")
            both = sum(rate(place / f"apart{k}") for k in range(2))
        found.append((one, two, both))
        print(
            f"round {number}: 1 rank {one:.2f}, 2 ranks {two:.2f}, 2 runs apart {both:.2f} clips/s",
            flush=True,
        )
    efficiency, limit = (statistics.median(row[k] / (2 * row[0]) for row in found) for k in (1, 2))
    print(f"efficiency of {given.strategy} {efficiency:.2f}, of two runs apart {limit:.2f}")


if __name__ == "__main__":
    main()
