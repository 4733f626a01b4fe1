"""Where the time of one V-JEPA 2 training step goes, beside Meta's modules and what a plain matrix product reaches.

OMP_NUM_THREADS=2 taskset -c 2,3 python tools/bench_step.py [--threads 2] [--repeats 5] [--dtypes fp32] [--target_bf16]

Meta's modules are those of the package cc-vjepa2, in an environment of its own with ours:
pip install --no-deps cc-vjepa2 && pip install . . Where it is absent, only ours are timed. Both have the same
weights, clips and masks, and take their steps in turn; a second run of each in a process of its own gives its peak of
memory.

ViT-S, 16 frames of 224 x 224, batch 2, rotary positions, predictor 192 x 6, 8 blocks of 0.15 and 2 of 0.7. A line a
part: median milliseconds over the steps, its share of the step, the FLOP/s of its linear layers over ALL of its
time, and their share of the matrix product's FLOP/s measured in the same run. So the share is a lower bound of what
the linear layers reach by themselves; a line a kind of work, from one more step under a profiler, says that apart.
Reading clips is not in it: tools/bench_data.py times that.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.checkpoints import save_meta
from vjepa.layers.mlp import GeluMlp
from vjepa.masks import TubeBlocks
from vjepa.models import Predictor, create_model
from vjepa.objectives import LatentPrediction
from vjepa.objectives.masked import tokens_at
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
        self._flop = self.again = 0.0
        self._spent: dict[str, float] = {}
        self._last = 0.0

    def start(self) -> None:
        """A step begins."""
        self._spent, self.work, self._flop, self.again = {}, {}, 0.0, 0.0
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

    def count_mlp(self, mlp: GeluMlp, _: tuple[Tensor, ...], output: Tensor) -> None:
        """Forward hook of an MLP, which with gradients does not call its layers, and computes the first one again."""
        if torch.is_grad_enabled():
            once = 2.0 * output.numel() * mlp.fc1.out_features
            self._flop += 2 * once
            self.again += once


@dataclass
class Setting:
    """Our networks, a batch and its masks."""

    objective: LatentPrediction
    video: Tensor
    pairs: list[MaskPair]

    @property
    def num_tokens(self) -> int:
        """Tokens of a step: all of the clips, those of each context twice, and the predicted ones."""
        seen = sum(p.context.numel() * 2 + p.target.numel() for p in self.pairs)
        return len(self.video) * len(self.objective.context_encoder.grid_of(self.video)) + seen


def setting(target_bf16: bool = False) -> Setting:
    """The same at every call."""
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
    if target_bf16:
        for block in objective.target_encoder.blocks:
            block.products = torch.bfloat16
    video = torch.randn(2, 3, 16, 224, 224)
    grid = objective.context_encoder.grid_of(video)
    return Setting(objective, video, [m.sample(grid, 2, torch.Generator().manual_seed(0)) for m in masks])


class Ours:
    """Steps of `vjepa`, part by part as `LatentPrediction.forward` and the training loop take them."""

    def __init__(self, given: Setting, dtype: str) -> None:
        self.given, self.clock = given, Clock()
        self.mixed = dtype == "bf16"
        self.optimizer = adamw(given.objective)
        for module in given.objective.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(self.clock.count)
            if isinstance(module, GeluMlp):
                module.register_forward_hook(self.clock.count_mlp)

    def step(self) -> float:
        """One step; its loss."""
        objective, video, clock = self.given.objective, self.given.video, self.clock
        clock.start()
        grid = objective.context_encoder.grid_of(video)
        with mixed(self.mixed):
            targets = objective.targets(video)
            clock.lap("target")
            losses = []
            for i, pair in enumerate(self.given.pairs):
                context = objective.context_encoder(video, keep=pair.context)
                clock.lap("context")
                predicted = objective.predictor(context, pair.context, pair.target, grid=grid, mask_token=i)
                clock.lap("predictor")
                losses.append(objective.distance(predicted, tokens_at(targets, pair.target)))
                clock.lap("loss")
            loss = torch.stack(losses).mean()
        forward = clock.work["context"] + clock.work["predictor"]
        loss.backward()
        clock.lap("backward")
        # one product for the inputs, one for the weights
        clock.work["backward"] = 2 * forward + clock.again
        self.optimizer.step()
        self.optimizer.zero_grad()
        clock.lap("optimiser")
        ema_update(objective.ema_pairs(), MOMENTUM)
        clock.lap("EMA")
        clock.finish()
        return float(loss.detach())


class Theirs:
    """Steps of Meta's modules, as the package cc-vjepa2 has them, with our weights."""

    def __init__(self, given: Setting, dtype: str) -> None:
        from vjepa2.models.predictor import vit_predictor
        from vjepa2.models.vision_transformer import vit_small

        self.given, self.mixed, self.times = given, dtype != "fp32", list[float]()
        shape: dict[str, Any] = {"img_size": 224, "patch_size": 16, "num_frames": 16, "use_rope": True}
        self.encoder = vit_small(**shape, uniform_power=True)
        self.predictor = vit_predictor(
            **shape,
            uniform_power=True,
            embed_dim=self.encoder.embed_dim,
            predictor_embed_dim=192,
            depth=6,
            num_heads=6,
            use_mask_tokens=True,
            num_mask_tokens=len(given.pairs),
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "meta.pt"
            ours = given.objective
            save_meta(path, encoder=ours.target_encoder, predictor=ours.predictor)
            content = torch.load(path, weights_only=True)
        for module, entry in ((self.encoder, "target_encoder"), (self.predictor, "predictor")):
            module.load_state_dict({k.removeprefix("module.backbone."): v for k, v in content[entry].items()})
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.optimizer = adamw(nn.ModuleList([self.encoder, self.predictor]))

    def step(self) -> float:
        """One step; its loss."""
        started = time.perf_counter()
        video = self.given.video
        with mixed(self.mixed):
            with torch.no_grad():
                targets = F.layer_norm(self.target(video), (self.target.embed_dim,))
            losses = []
            for i, pair in enumerate(self.given.pairs):
                context = self.encoder(video, masks=[pair.context])
                predicted = self.predictor(context, [pair.context], [pair.target], mask_index=i)
                losses.append((predicted.float() - tokens_at(targets, pair.target)).abs().mean())
            loss = torch.stack(losses).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            pairs = zip(self.target.parameters(), self.encoder.parameters(), strict=True)
            for slow, fast in pairs:
                slow.mul_(MOMENTUM).add_((1 - MOMENTUM) * fast)
        self.times.append(1e3 * (time.perf_counter() - started))
        return float(loss.detach())


SIDES: dict[str, Callable[[Setting, str], Ours | Theirs]] = {"ours": Ours, "theirs": Theirs}


def adamw(module: nn.Module) -> torch.optim.AdamW:
    """Of what is trained."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-4, fused=True)


def mixed(wanted: bool) -> Any:
    """Mixed precision, or none."""
    return torch.autocast("cpu", torch.bfloat16) if wanted else nullcontext()


def peak(side: str, dtype: str, threads: int, target_bf16: bool) -> float:
    """MiB that two steps take at most beyond what the process had before its networks were built."""
    command = [sys.executable, __file__, "--peak", side, "--dtypes", dtype, "--threads", str(threads)]
    command += ["--target_bf16"] * target_bf16
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measured_peak(side: str, dtype: str, target_bf16: bool) -> float:
    """`peak`, of this process."""
    before = high_water()
    steps = SIDES[side](setting(target_bf16), dtype)
    if isinstance(steps, Theirs):
        del steps.given.objective  # theirs are copies
    steps.step()
    steps.step()
    return high_water() - before


def high_water() -> float:
    """MiB that this program took at most; what `resource` counts begins with that of the parent process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def print_parts(ours: Ours, top: float) -> None:
    """A line for each part."""
    clock = ours.clock
    whole = statistics.median(clock.times["step"])
    print("part            ms  of step  linear GFLOP/s  of product")
    for part, times in clock.times.items():
        value = statistics.median(times)
        work = sum(clock.work.values()) if part == "step" else clock.work[part]
        rate = work / value * 1e3
        print(
            f"{part:10} {value:7.0f} {value / whole:8.1%} {rate / 1e9:15.0f} {rate / top:11.1%}", flush=True
        )


def kind_of(event: Any) -> str:
    """Linear layer, attention, or neither: by what the operator is part of."""
    kind = "neither"
    while event is not None:
        name = event.name.lower()
        if any(part in name for part in ("attend", "attention", "bmm", "softmax")):
            return "attention"
        if any(part in name for part in ("addmm", "aten::mm", "aten::linear", "mkldnn_linear")):
            kind = "linear"
        event = event.cpu_parent
    return kind


def print_kinds(ours: Ours, top: float) -> None:
    """Where the time of a step goes by kind of work, with the operators of neither kind that take most."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        ours.step()
    spent, names = defaultdict[str, float](float), defaultdict[str, float](float)
    for event in profiled.events():
        kind = kind_of(event)
        spent[kind] += event.self_cpu_time_total / 1e3
        if kind == "neither":
            names[event.name] += event.self_cpu_time_total / 1e3
    work = sum(ours.clock.work.values())
    rate = work / spent["linear"] * 1e3
    print(
        f"linear layers {spent['linear']:.0f} ms: {rate / 1e9:.0f} GFLOP/s, {rate / top:.0%} of the product"
    )
    whole = sum(spent.values())
    print(
        f"attention {spent['attention']:.0f} ms, neither {spent['neither']:.0f} ms: {spent['neither'] / whole:.0%}"
    )
    most = sorted(names.items(), key=lambda item: -item[1])[:8]
    print("of neither: " + ", ".join(f"{name} {value:.0f}" for name, value in most), flush=True)


def print_against(ours: Ours, theirs: Theirs, losses: list[tuple[float, float]]) -> None:
    """Medians of the pairs, and how far the losses are apart."""
    mine = ours.clock.times["step"]
    ratio = statistics.median(b / a for a, b in zip(mine, theirs.times, strict=True))
    apart = [abs(a - b) / abs(b) for a, b in losses]
    print(f"Meta's modules {statistics.median(theirs.times):.0f} ms: ours {ratio:.2f} x faster")
    print(f"losses apart, relative: first step {apart[0]:.1e}, all {len(apart)} steps {max(apart):.1e}")


def ceiling(dtype: torch.dtype) -> float:
    """FLOP/s of a plain matrix product, median of nine."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / statistics.median(seconds[1:])


def compare(name: str, repeats: int, threads: int, target_bf16: bool) -> None:
    """All that is printed for a dtype."""
    given = setting(target_bf16)
    theirs = Theirs(given, name) if importlib.util.find_spec("vjepa2") else None
    ours = Ours(given, name)  # after theirs, which take its weights in fp32
    losses = [(ours.step(), theirs.step() if theirs else 0.0) for _ in range(repeats + 1)]
    for times in (*ours.clock.times.values(), theirs.times if theirs else []):
        del times[:1]  # the first step allocates
    top = ceiling(DTYPES[name])
    rate = 1e3 * given.num_tokens / statistics.median(ours.clock.times["step"])
    print(
        f"{name}: matrix product {top / 1e9:.0f} GFLOP/s, first loss {losses[0][0]:.7f}, {rate:.0f} tokens/s"
    )
    print_parts(ours, top)
    if theirs:
        print_against(ours, theirs, losses)
        mine, other = (peak(side, name, threads, target_bf16) for side in SIDES)
        print(f"peak memory {mine:.0f} MiB, Meta's modules {other:.0f} MiB: {mine / other:.2f}", flush=True)
    print_kinds(ours, top)


def main() -> None:
    """Print a table for each dtype."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--target_bf16", action="store_true", help="our target encoder multiplies in bf16")
    parser.add_argument("--peak", choices=SIDES, help="measure only the peak of memory, of these")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak:
        print(measured_peak(given.peak, given.dtypes[0], given.target_bf16))
        return
    for name in given.dtypes:
        compare(name, given.repeats, given.threads, given.target_bf16)


if __name__ == "__main__":
    main()
