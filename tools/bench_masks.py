"""Times the masks of a batch against a draw for each clip, by ourselves and as the published loop has it.

The published loop goes over clips and, of each, over blocks, with three draws and a cube of ones for a block.

python tools/bench_masks.py [--batch 24] [--surplus tail] [--pairs 15]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from vjepa.masks import TubeBlocks
from vjepa.types import TokenGrid

GRID = TokenGrid(t=8, h=14, w=14)


def seconds(masks: list[TubeBlocks], calls: int, rows: int) -> float:
    """Time of `calls` draws of `rows` clips of each strategy."""
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for _ in range(calls):
        for mask in masks:
            mask.sample(GRID, rows, generator)
    return time.perf_counter() - started


def published(masks: list[TubeBlocks], rows: int) -> float:
    """Time of masks for `rows` clips by a loop over clips and blocks, cut to the shortest."""
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for mask in masks:
        t, h, w = mask.block_size(GRID, generator)
        pairs = []
        for _ in range(rows):
            seen = torch.zeros(GRID.t, GRID.h, GRID.w, dtype=torch.int32)
            while not seen.any():
                seen = torch.ones_like(seen)
                for _ in range(mask.num_blocks):
                    top, left, start = (
                        int(torch.randint(0, length - size + 1, (1,), generator=generator))
                        for length, size in ((GRID.h, h), (GRID.w, w), (GRID.t, t))
                    )
                    block = torch.ones_like(seen)
                    block[start : start + t, top : top + h, left : left + w] = 0
                    seen *= block
            flat = seen.flatten()
            pairs.append((torch.nonzero(flat).squeeze(1), torch.nonzero(flat == 0).squeeze(1)))
        for column in zip(*pairs, strict=True):
            shortest = min(len(ids) for ids in column)
            torch.stack([ids[:shortest] for ids in column])
    return time.perf_counter() - started


def main() -> None:
    """Print median milliseconds of each way, and the median of their ratios, round by round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument(
        "--surplus", choices=("random", "tail"), default="random", help="the published loop has tail"
    )
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    masks: list[TubeBlocks] = [
        TubeBlocks(num_blocks=8, spatial_scale=(0.15, 0.15), surplus=arguments.surplus),
        TubeBlocks(num_blocks=2, spatial_scale=(0.7, 0.7), surplus=arguments.surplus),
    ]
    times = [
        (
            seconds(masks, 1, arguments.batch),
            seconds(masks, arguments.batch, 1),
            published(masks, arguments.batch),
        )
        for _ in range(arguments.pairs + 2)
    ][2:]  # the first are warm-up
    whole, single, loop = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    by_single, by_loop = (statistics.median(row[k] / row[0] for row in times) for k in (1, 2))
    print(
        f"batch {arguments.batch}: at once {whole:.2f} ms; clip by clip {single:.2f} ms, {by_single:.1f} times; "
        f"published loop {loop:.2f} ms, {by_loop:.1f} times"
    )


if __name__ == "__main__":
    main()
