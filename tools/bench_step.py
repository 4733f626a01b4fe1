"""Where the time of one V-JEPA 2 training step goes, beside what a plain matrix product reaches.

OMP_NUM_THREADS=2 taskset -c 2,3 python tools/bench_step.py [--threads 2] [--repeats 5] [--dtypes bf16 fp32]

ViT-S, 16 frames of 224 x 224, batch 2, rotary positions, predictor 192 x 6, 8 blocks of 0.15 and 2 of 0.7. A line a
part: median milliseconds over the steps, its share of the step, the FLOP/s of its linear layers over ALL of its
time, and their share of the matrix product's FLOP/s measured in the same run. So the share is a lower bound of what
the linear layers reach by themselves. Reading clips is not in it: tools/bench_data.py times that.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from vjepa.masks import TubeBlocks
from vjepa.models import Predictor, create_model
from vjepa.objectives import LatentPrediction
from vjepa.optim import ema_update
from vjepa.types import MaskPair

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
MOMENTUM = 0.99925  # of the published recipe
SIDE = 1536  # of the plain matrix product


class Clock:
    """Milliseconds and FLOP of the linear layers, by part, of each step."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self.work: dict[str, float] = {}
        self._flop = 0.0
        self._spent: dict[str, float] = {}
        self._last = 0.0

    def start(self) -> None:
        """A step begins."""
        self._spent, self.work, self._flop = {}, {}, 0.0
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """What passed since the last lap belongs to this part."""
        now = time.perf_counter()
        self._spent[part] = self._spent.get(part, 0.0) + 1e3 * (now - self._last)
        self.work[part] = self.work.get(part, 0.0) + self._flop
        self._last, self._flop = now, 0.0

    def finish(self) -> None:
        """The step counts."""
        for part, value in self._spent.items():
            self.times[part].append(value)
        self.times["step"].append(sum(self._spent.values()))

    def count(self, layer: nn.Linear, _: tuple[Tensor, ...], output: Tensor) -> None:
        """Forward hook of a linear layer."""
        self._flop += 2.0 * output.numel() * layer.in_features


def step(
    objective: LatentPrediction, video: Tensor, pairs: list[MaskPair], clock: Clock, dtype: torch.dtype
) -> Tensor:
    """Forward of a step, part by part as `LatentPrediction.forward` does it; the loss."""
    grid = objective.context_encoder.grid_of(video)
    mixed = torch.autocast("cpu", dtype) if dtype != torch.float32 else nullcontext()
    with mixed:
        targets = objective.targets(video)
        clock.lap("target")
        losses = []
        for i, pair in enumerate(pairs):
            context = objective.context_encoder(video, keep=pair.context)
            clock.lap("context")
            predicted = objective.predictor(context, pair.context, pair.target, grid=grid, mask_token=i)
            clock.lap("predictor")
            index = pair.target[..., None].expand(-1, -1, targets.shape[-1])
            losses.append(objective.distance(predicted, targets.gather(1, index)))
            clock.lap("loss")
    return torch.stack(losses).mean()


def measure(dtype: torch.dtype, repeats: int) -> tuple[Clock, float, int]:
    """Clock of so many steps after one to warm up, the first step's loss, and the tokens of a step."""
    torch.manual_seed(0)
    masks = [
        TubeBlocks(num_blocks=8, spatial_scale=(0.15, 0.15)),
        TubeBlocks(num_blocks=2, spatial_scale=(0.7, 0.7)),
    ]
    objective = LatentPrediction(
        encoder=create_model("vit_small_patch16_224", num_frames=16, position="rope"),
        predictor=lambda width: Predictor(width, embed_dim=192, depth=6, num_heads=6),
        masks=list(masks),
    )
    video = torch.randn(2, 3, 16, 224, 224)
    grid = objective.context_encoder.grid_of(video)
    pairs = [m.sample(grid, 2, torch.Generator().manual_seed(0)) for m in masks]
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    clock, first = Clock(), 0.0
    for module in objective.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(clock.count)
    for turn in range(repeats + 1):
        clock.start()
        loss = step(objective, video, pairs, clock, dtype)
        forward = clock.work["context"] + clock.work["predictor"]
        loss.backward()
        clock.lap("backward")
        clock.work["backward"] = 2 * forward  # one product for the inputs, one for the weights
        optimizer.step()
        optimizer.zero_grad()
        clock.lap("optimiser")
        ema_update(objective.ema_pairs(), MOMENTUM)
        clock.lap("EMA")
        if turn:
            clock.finish()
        else:
            first = float(loss.detach())
    seen = sum(p.context.numel() * 2 + p.target.numel() for p in pairs)  # by encoder and predictor
    return clock, first, 2 * len(grid) + seen


def ceiling(dtype: torch.dtype) -> float:
    """FLOP/s of a plain matrix product, median of nine."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / statistics.median(seconds[1:])


def main() -> None:
    """Print a table for each dtype."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.dtypes:
        clock, loss, tokens = measure(DTYPES[name], given.repeats)
        top = ceiling(DTYPES[name])
        whole = statistics.median(clock.times["step"])
        print(
            f"{name}: matrix product {top / 1e9:.0f} GFLOP/s, loss {loss:.7f}, {1e3 * tokens / whole:.0f} tokens/s"
        )
        print("part            ms  of step  linear GFLOP/s  of product")
        for part, times in clock.times.items():
            value = statistics.median(times)
            work = sum(clock.work.values()) if part == "step" else clock.work[part]
            rate = work / value * 1e3
            print(
                f"{part:10} {value:7.0f} {value / whole:8.1%} {rate / 1e9:15.0f} {rate / top:11.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
