"""Times the masks of a batch against a draw for each clip.

python tools/bench_masks.py [--batch 24] [--pairs 15]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from vjepa.masks import MaskStrategy, TubeBlocks
from vjepa.types import TokenGrid

GRID = TokenGrid(t=8, h=14, w=14)


def seconds(masks: list[MaskStrategy], calls: int, rows: int) -> float:
    """Time of `calls` draws of `rows` clips of each strategy."""
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for _ in range(calls):
        for mask in masks:
            mask.sample(GRID, rows, generator)
    return time.perf_counter() - started


def main() -> None:
    """Print median milliseconds of both ways, and the median of their ratios, pair by pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    masks: list[MaskStrategy] = [
        TubeBlocks(num_blocks=8, spatial_scale=(0.15, 0.15)),
        TubeBlocks(num_blocks=2, spatial_scale=(0.7, 0.7)),
    ]
    times = [
        (seconds(masks, 1, arguments.batch), seconds(masks, arguments.batch, 1))
        for _ in range(arguments.pairs + 2)
    ][2:]  # the first are warm-up
    whole, single = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    print(f"batch {arguments.batch}: at once {whole:.2f} ms, clip by clip {single:.2f} ms, ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
