"""Batches a second of the training loader, with all frames in memory: what the loader itself costs.

python tools/bench_loader.py [--clips 512] [--workers 0] [--rounds 5]

The processor's time is what to compare with another checkout's on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

from vjepa.data import ClipSampler, Reading, TrainTransform, VideoDataModule
from vjepa.worlds import WorldConfig


def main() -> None:
    """Make the clips, fill the cache, time whole epochs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    world = WorldConfig(root=tempfile.mkdtemp(), num_train=arguments.clips, num_val=1, num_workers=1)
    data = VideoDataModule(
        world=world,
        sampler=ClipSampler(num_frames=16, fps=None),
        transform=TrainTransform(size=32),
        batch_size=32,
        num_workers=arguments.workers,
        reading=Reading(cache_bytes=10**9),
    )
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    rates, processor = [], []
    for number in range(arguments.rounds + 1):
        started, used = time.perf_counter(), time.process_time()
        count = sum(1 for _ in loader)
        if number:  # the first fills the cache
            rates.append(count / (time.perf_counter() - started))
            processor.append(1e3 * (time.process_time() - used) / count)
    print(
        f"{statistics.median(rates):.1f} batches/s, {min(rates):.1f} to {max(rates):.1f}, {count} an epoch;",
        end=" ",
    )
    print(f"{statistics.median(processor):.2f} ms of this process a batch, {min(processor):.2f} at best")


if __name__ == "__main__":
    main()
