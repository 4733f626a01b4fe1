"""Milliseconds a clip of every transform, one thread: `python tools/bench_transforms.py --height 256 --width 340`."""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from vjepa.data import (
    EvalTransform,
    ImageEvalTransform,
    ImageTrainTransform,
    ProbeTrainTransform,
    TrainTransform,
    ViewsTransform,
)
from vjepa.data.transforms.auto_augment import CHANGES, INCREASING, Operation, change_frames


def milliseconds(call, repeats: int) -> tuple[float, float]:
    """Median and mean of `call(i)`, after one call to warm up."""
    call(0)
    times = []
    for i in range(repeats):
        began = time.perf_counter()
        call(i)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times), statistics.mean(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=340)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape = (args.frames, args.height, args.width, 3)
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).permute(
        0, 3, 1, 2
    )
    videos = {
        "TrainTransform": TrainTransform(size=args.size),
        "ProbeTrainTransform": ProbeTrainTransform(size=args.size),
        "  without RandAugment": ProbeTrainTransform(size=args.size, auto_augment=None),
        "EvalTransform": EvalTransform(size=args.size),
        "ViewsTransform (3)": ViewsTransform(size=args.size),
    }
    images = {
        "ImageTrainTransform": ImageTrainTransform(size=args.size),
        "  of probes": ImageTrainTransform(
            size=args.size, scale=(0.08, 1.0), flip=0.5, interpolation="bicubic", auto_augment="original"
        ),
        "ImageEvalTransform": ImageEvalTransform(size=args.size),
    }
    print(f"{args.frames} frames of {args.width} x {args.height} to {args.size}, one thread: median, mean ms")
    for clip, transforms in ((frames, videos), (frames[:1], images)):
        for name, transform in transforms.items():
            got = milliseconds(lambda i, t=transform, c=clip: t(c, np.random.default_rng(i)), args.repeats)
            print(f"{name:24} {got[0]:7.1f} {got[1]:7.1f}")
    print("single changes of RandAugment, magnitude 7")
    for name in CHANGES:
        operations = [Operation(name, float(INCREASING[name](7.0, 1)))]
        got = milliseconds(lambda i, o=operations: change_frames(frames, o), max(3, args.repeats // 8))
        print(f"  {name:22} {got[0]:7.1f}")


if __name__ == "__main__":
    main()
