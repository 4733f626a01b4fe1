"""What 20 attentive heads cost beside one, and a sweep from cache beside the first pass: wall time of `vjepa probe`.

python tools/bench_probe_grid.py [--train 2000] [--repeats 3] [--threads 2]
python tools/bench_probe_grid.py --model vit_tiny_patch16_224 --precision bf16 --train 1000 --repeats 1
python tools/bench_probe_grid.py --model vit_tiny_patch16_224 --precision bf16 --train 200 --training_only

On the embedded world. The encoder is of the quickstart's size, or a model of `vjepa.list_models()` on clips of 16
frames, at random init (the time is the same). "first pass" writes the cache, "cached" reads it; "training alone"
leaves out start, decoding and reading.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch

from vjepa.commands.data_world import world_command
from vjepa.commands.flags import grouped
from vjepa.commands.probe import probe
from vjepa.data.manifests.reader import read_manifest
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.encode import Precision
from vjepa.features.tokens import tokens_of
from vjepa.models import VideoEncoder, create_model
from vjepa.models.files import save_folder
from vjepa.probes import ProbeSettings, eval_clips
from vjepa.probes.base import Standardize
from vjepa.probes.fitting.side_by_side import Plan, fit_attentive
from vjepa.probes.fitting.trials import ProbeData

ONE = ProbeSettings(lr=(1e-3,), weight_decay=(0.1,), num_steps=600)
TWENTY = ProbeSettings(lr=(5e-3, 3e-3, 1e-3, 3e-4, 1e-4), weight_decay=(0.01, 0.1, 0.4, 0.8), num_steps=600)
GRIDS = {"1 head": ONE, "20 heads": TWENTY}


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(name: str, times: dict[str, list[float]]) -> None:
    """Medians, and the median of the ratios of each repeat."""
    one, twenty = (times[head] for head in GRIDS)
    ratio = statistics.median(b / a for a, b in zip(one, twenty, strict=True))
    print(
        f"{name}: 1 head {statistics.median(one):.2f} s, 20 heads {statistics.median(twenty):.2f} s, {ratio:.2f}x"
    )


def training(
    encoder: VideoEncoder, manifest: str, label: str, repeats: int, precision: Precision
) -> dict[str, list[float]]:
    """Seconds of 200 steps of the same tokens, in turn."""
    rows = read_manifest(manifest, label_column=label)
    spec = ClipSpec.for_encoder(encoder)
    found = tokens_of(encoder, eval_clips(rows, spec), spec, precision=precision)
    standardize = Standardize(embed_dim=encoder.embed_dim)
    standardize.measure(found.tokens)
    count = len(found.index)
    data = ProbeData(
        found.tokens, found.labels(rows), standardize, len(rows.label_names), torch.device("cpu"), count
    )
    times: dict[str, list[float]] = {name: [] for name in GRIDS}
    for _ in range(repeats):
        for name, grid in GRIDS.items():
            fitted, held = torch.arange(count * 4 // 5), torch.arange(count * 4 // 5, count)
            times[name].append(
                seconds(
                    lambda g=grid, f=fitted, h=held: fit_attentive(data, Plan(f, h, g, num_steps=200, seed=0))
                )
            )
    return times


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="as vjepa.create_model has it (default: the quickstart's)")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
    parser.add_argument("--train", type=int, default=2000, help="clips of the world")
    parser.add_argument("--label", default="appearance")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--training_only", action="store_true", help="time no `vjepa probe`")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        world_command(out=place / "world", num_train=given.train, num_val=given.train // 5, num_workers=1)
        if given.model:
            encoder = create_model(given.model, num_frames=16)
        else:
            encoder = VideoEncoder(
                img_size=32, patch_size=8, tubelet_size=4, embed_dim=128, depth=4, num_heads=2
            )
        path = str(save_folder(place / "encoder", encoder))
        train, val = (str(place / "world" / f"{split}.csv") for split in ("train", "val"))
        files = {"encoder": path, "train": train, "val": val, "label": given.label, "random_init": False}
        files["precision"] = given.precision
        compare(
            "training alone", training(encoder.eval(), train, given.label, given.repeats, given.precision)
        )
        if given.training_only:
            return
        first: dict[str, list[float]] = {name: [] for name in GRIDS}
        again: dict[str, list[float]] = {name: [] for name in GRIDS}
        for repeat in range(given.repeats):
            for name, grid in GRIDS.items():
                options = files | {
                    "cache": place / f"cache_{repeat}_{name[:2]}",
                    "out": place / "out",
                    "grid": grid,
                }
                first[name].append(seconds(lambda o=options: probe(**grouped(probe, o))))
                again[name].append(seconds(lambda o=options: probe(**grouped(probe, o))))
        compare("first pass", first)
        compare("cached", again)
        for head, times in first.items():
            ratio = statistics.median(a / b for a, b in zip(times, again[head], strict=True))
            print(f"a sweep of {head} from cache: {ratio:.1f}x as fast as its first pass")


if __name__ == "__main__":
    main()
