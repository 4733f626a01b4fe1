"""Compare `vjepa estimate` with real steps of small models: a table of estimated and measured figures.

torch.utils.flop_counter counts the FLOPs of a real step. Memory is the peak of a separate process's resident set
(VmHWM of Linux) over real steps, above its size before the first weight. That includes the memory of the library of
matrix products and of the allocator. glibc is set to return freed memory at once.

    python tools/check_estimate.py
    python tools/check_estimate.py dense pixels
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from vjepa.masks import ImageBlocks, RandomTubes, TubeBlocks
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import DensePrediction, LatentPrediction, Objective, PixelPrediction
from vjepa.optim import Constant, decay_groups, ema_update
from vjepa.training.dry_run import DryRun, drawn_lengths, flop_counter
from vjepa.types import ClipBatch

STEPS = 3
SMALL = {"embed_dim": 384, "depth": 8, "num_heads": 6}
NARROW = {"embed_dim": 192, "depth": 4, "num_heads": 6}
BLOCKS = [{"num_blocks": 8}, {"num_blocks": 2, "spatial_scale": (0.7, 0.7)}]  # lengths differ by batch
TUBES = [{"ratio": 0.5}, {"ratio": 0.85}]  # they do not
# clips, frames, height, width; precision; whether blocks are computed again
TRIALS: dict[str, tuple[tuple[int, int, int, int], str, bool]] = {
    "sincos": ((4, 16, 160, 160), "32-true", False),
    "rope": ((4, 16, 160, 160), "32-true", False),
    "recompute": ((6, 16, 160, 160), "32-true", True),
    "images": ((16, 1, 224, 224), "32-true", False),
    "dense": ((4, 16, 160, 160), "32-true", False),
    "pixels": ((4, 16, 160, 160), "32-true", False),
    "mixed": ((4, 16, 160, 160), "bf16-mixed", False),
    "mixed-recompute": ((6, 16, 160, 160), "bf16-mixed", True),
}


def objective_of(name: str) -> Objective:
    """The objective of a trial."""
    position = "sincos" if name in ("sincos", "recompute") else "rope"
    if name == "images":
        encoder = VideoEncoder(img_size=224, num_frames=1, position="sincos_wh", **SMALL)
        masks: list[Any] = [ImageBlocks()]
        return LatentPrediction(
            encoder=encoder,
            predictor=lambda width: Predictor(width, position="sincos_wh", **NARROW),
            masks=masks,
            loss_exp="smooth",
        )
    levels = {"levels": (3, 7)} if name == "dense" else {}
    encoder = VideoEncoder(img_size=160, position=position, **SMALL, **levels)
    masks = [TubeBlocks(**each) for each in BLOCKS]
    if name != "sincos":
        masks = [RandomTubes(**each) for each in TUBES]

    def predictor(width: int, **more: Any) -> Predictor:
        return Predictor(width, position=position, num_levels=len(encoder.levels), **NARROW, **more)

    if name == "dense":
        return DensePrediction(
            encoder=encoder, predictor=predictor, masks=masks, context_weight=Constant(at=0.5)
        )
    kind = PixelPrediction if name == "pixels" else LatentPrediction
    return kind(encoder=encoder, predictor=predictor, masks=masks)


def measured(name: str) -> dict[str, float]:
    """Parameters, FLOPs and peak memory of real steps; to be called in a process of its own."""
    (clips, frames, height, width), precision, recompute = TRIALS[name]
    torch.set_num_threads(1)
    (torch.randn(64, 64) @ torch.randn(64, 64)).sum().item()  # the library of products is loaded
    gc.collect()
    before = _status("VmRSS")
    objective = objective_of(name).train()
    for block in objective.modules():
        if hasattr(block, "recompute"):
            block.recompute = recompute
    optimizer = torch.optim.AdamW(decay_groups(objective.context_encoder, objective.predictor))
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        rows = torch.zeros(clips, dtype=torch.long)
        video = torch.randn(clips, 3, frames, height, width, generator=generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = objective(ClipBatch(video=video, label=rows, index=rows), generator).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema_update(objective.ema_pairs(), 0.5) if objective.ema_pairs() else None

    for _ in range(STEPS):
        step()
    peak = _status("VmHWM") - before  # now: counting holds tensors longer
    flops = []
    for _ in range(STEPS):
        with flop_counter() as counter:
            step()
        flops.append(counter.get_total_flops())
    parameters = sum(p.numel() for p in objective.parameters())
    return {"parameters": parameters, "GFLOP per step": statistics.mean(flops) / 1e9, "peak MB": peak / 1e6}


def estimated(name: str) -> dict[str, float]:
    """The same figures, from no step at all."""
    clips, precision, recompute = TRIALS[name]
    with torch.device("meta"):
        objective = objective_of(name)
        video = torch.zeros(clips[0], 3, *clips[1:])
    mean, most = drawn_lengths(objective.masks, objective.context_encoder.grid_of(video), clips[0])
    usual, longest = (
        DryRun(objective, video.shape, masks, precision, "cpu", recompute) for masks in (mean, most)
    )
    flops = usual.flops()
    return {
        "parameters": sum(p.numel() for p in objective.parameters()),
        "GFLOP per step": (flops["forward"] + flops["backward"]) / 1e9,
        "peak MB": longest.memory()[1] / 1e6,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *TRIALS], default=[])
    parser.add_argument("--measure", choices=TRIALS, help="measure this one, in this process")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(given.measure)))
        return
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    print(f"{'':17}{'':14}{'estimated':>14}{'measured':>14}{'ratio':>8}")
    for name in given.names or TRIALS:
        command = [sys.executable, str(Path(__file__).resolve()), "--measure", name]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        real = json.loads(ran.stdout.splitlines()[-1])
        for figure, guess in estimated(name).items():
            print(
                f"{name:17}{figure:14}{guess:14,.1f}{real[figure]:14,.1f}{guess / real[figure]:8.3f}",
                flush=True,
            )


def _status(key: str) -> int:
    """A line of this process's own status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
