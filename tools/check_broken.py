"""A fit on clips of which some are broken, against one on a manifest without them: are the losses the same?

python tools/check_broken.py [--clips 1000] [--share 0.05] [--workers 2] [--steps 250]

Prints how many broken files the fit listed, and at how many steps the losses differ (to the bit). Needs ffmpeg's
libx264, which PyAV brings.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import yaml

from vjepa.commands.app import main as vjepa

KINDS = ("empty", "text", "cut", "zeros", "header only")


def write_clip(path: Path, seed: int) -> None:
    """Six frames of 24 x 24 coloured noise."""
    frames = (
        np.random.default_rng(seed).integers(0, 256, (6, 3, 3, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(8))
        stream.width = stream.height = 24
        stream.pix_fmt = "yuv420p"
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))


def break_clip(path: Path, kind: str) -> None:
    """Make a file unreadable."""
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "text": b"this is no video\n",
        "cut": content[: len(content) // 2],
        "zeros": bytes(len(content)),
        "header only": content[:32],
    }
    path.write_bytes(damaged[kind])


def write_recipe(folder: Path, train: Path, steps: int, workers: int) -> Path:
    """A recipe of seconds, for any manifest."""
    sizes = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    encoder = {"img_size": 24, "patch_size": 8, "num_frames": 4, "tubelet_size": 2, **sizes}
    recipe = {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_steps": steps,
            "max_epochs": -1,
            "log_every_n_steps": 1,
            "default_root_dir": str(folder / train.stem),
        },
        "model": {
            "objective": {
                "class_path": "vjepa.objectives.LatentPrediction",
                "init_args": {
                    "encoder": {"class_path": "vjepa.models.VideoEncoder", "init_args": encoder},
                    "predictor": {"class_path": "vjepa.models.Predictor", "init_args": sizes},
                    "masks": [{"class_path": "vjepa.masks.RandomTubes", "init_args": {"ratio": 0.5}}],
                },
            },
            "lr": {"class_path": "vjepa.optim.WarmupCosine", "init_args": {"peak": 1.0e-3}},
            "weight_decay": {"class_path": "vjepa.optim.Constant", "init_args": {"at": 0.05}},
            "momentum": {"class_path": "vjepa.optim.Linear", "init_args": {"start": 0.9, "end": 1.0}},
        },
        "data": {
            "train": str(train),
            "sampler": {"num_frames": 4, "fps": 4.0},
            "transform": {"size": 24},
            "batch_size": 8,
            "num_workers": workers,
        },
    }
    path = folder / f"{train.stem}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def main() -> None:
    """Make the clips, run both fits, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=250, help="250 steps of 8 clips are two epochs of 1,000")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="check_broken_"))
    (folder / "clips").mkdir()
    names = [f"clips/{i:05d}.mp4" for i in range(arguments.clips)]
    for i, name in enumerate(names):
        write_clip(folder / name, i)
    chosen = np.random.default_rng(0).permutation(arguments.clips)[: round(arguments.share * arguments.clips)]
    broken = [names[i] for i in sorted(chosen)]
    for i, name in enumerate(broken):
        break_clip(folder / name, KINDS[i % len(KINDS)])
    whole, clean = folder / "with_broken.csv", folder / "clean.csv"
    whole.write_text("\n".join(["path", *names]) + "\n")
    clean.write_text("\n".join(["path", *(n for n in names if n not in set(broken))]) + "\n")
    losses = []
    for manifest in (whole, clean):
        recipe = write_recipe(folder, manifest, arguments.steps, arguments.workers)
        assert vjepa(["fit", "--config", str(recipe)]) == 0
        run = folder / manifest.stem / "version_0"
        rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
        losses.append([row["train/loss"] for row in rows if row["train/loss"]])
    run = folder / whole.stem / "version_0"
    listed = {
        Path(row["path"]).name for row in csv.DictReader((run / "failures.csv").read_text().splitlines())
    }
    counted = json.loads((run / "result.json").read_text())["failed_clips"]
    differ = sum(a != b for a, b in zip(*losses, strict=True))
    print(f"{len(broken)} broken of {len(names)}: {counted} counted, {len(listed)} in failures.csv,")
    print(f"exactly those: {listed == {Path(name).name for name in broken}}")
    print(f"{len(losses[0])} losses, {differ} of them differ from the run on the clean manifest")


if __name__ == "__main__":
    main()
