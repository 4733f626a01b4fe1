"""Clips a second of the training loader with one worker process and with two, from real files.

python tools/bench_workers.py [--clips 200] [--rounds 3]      (pinned to two cores: taskset -c 0,1)

16 frames, every 4th, of clips like Kinetics' (tools/bench_data.py). One epoch each by turns, after one that starts the
workers; prints the rates and the median of their ratios.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from bench_data import KINDS, generate

from vjepa.data import ClipSampler, TrainTransform, VideoDataModule

WORKERS = (1, 2)


def main() -> None:
    """Write the clips, and time epochs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        codec, suffix, *shape, options = KINDS["kinetics"]
        first = Path(place) / f"0.{suffix}"
        generate(first, codec, *shape, options)  # type: ignore[arg-type]
        for number in range(1, given.clips):
            shutil.copyfile(first, Path(place) / f"{number}.{suffix}")
        loaders = {}
        for workers in WORKERS:
            data = VideoDataModule(
                train=place,
                batch_size=10,
                num_workers=workers,
                sampler=ClipSampler(num_frames=16, fps=None, frame_step=4),
                transform=TrainTransform(size=224),
            )
            data.setup("fit")
            loaders[workers] = data.train_dataloader()
        rates: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        for turn in range(given.rounds + 1):
            for workers, loader in loaders.items():
                began = time.perf_counter()
                num_clips = sum(len(batch) for batch in loader)
                rates[workers] += [num_clips / (time.perf_counter() - began)] if turn else []
        for workers, found in rates.items():
            print(f"{workers} workers: {statistics.median(found):.1f} clips/s")
        ratio = statistics.median(b / a for a, b in zip(rates[1], rates[2], strict=True))
        print(f"two over one: {ratio:.2f}")


if __name__ == "__main__":
    main()
