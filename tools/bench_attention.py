"""Times attention on this CPU: plain products, whole or in blocks, against torch's fused kernel.

python tools/bench_attention.py [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa.layers.block_attention import attend_in_blocks

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
fused = F.scaled_dot_product_attention


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention as two products."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores.softmax(dim=-1) @ value


def seconds(kernel: Kernel, tensors: list[Tensor]) -> float:
    """Time of one forward and backward."""
    started = time.perf_counter()
    kernel(*tensors).sum().backward()
    return time.perf_counter() - started


@torch.inference_mode()
def forward_seconds(kernel: Kernel, tensors: list[Tensor]) -> float:
    """Time of one forward."""
    started = time.perf_counter()
    kernel(*tensors)
    return time.perf_counter() - started


def compare(
    name: str, measured: Callable[[Kernel], float], kernels: tuple[Kernel, Kernel], pairs: int
) -> None:
    """A line: median milliseconds of both kernels, and the median of their ratios."""
    times = [(measured(kernels[0]), measured(kernels[1])) for _ in range(pairs + 2)][
        2:
    ]  # the first are warm-up
    ours, theirs = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{name}  {ours:8.2f}  {theirs:8.2f}  {statistics.median(b / a for a, b in times):8.2f}", flush=True
    )


def main() -> None:
    """Print a line for each length and type: median milliseconds of both, and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("64 rows, 2 heads of 64 channels\ndtype     tokens  plain ms  fused ms  fused / plain")
    for dtype in (torch.bfloat16, torch.float32):
        for length in (16, 32, 64, 128, 256, 512):
            tensors = [torch.randn(64, 2, length, 64, dtype=dtype, requires_grad=True) for _ in range(3)]
            name = f"{str(dtype)[6:]:8}  {length:6}"
            compare(name, partial(seconds, tensors=tensors), (plain, fused), arguments.pairs)
    print("\n6 heads of 64 channels\ndtype     rows x tokens  blocks ms  fused ms  fused / blocks")
    for dtype in (torch.bfloat16, torch.float32):
        for rows, length in ((2, 550), (2, 1024), (2, 1568), (1, 4608)):
            tensors = [torch.randn(rows, 6, length, 64, dtype=dtype, requires_grad=True) for _ in range(3)]
            name = f"{str(dtype)[6:]:8}  {rows} x {length:6}"
            compare(name, partial(seconds, tensors=tensors), (attend_in_blocks, fused), arguments.pairs)
    print(
        "\nforward alone, 6 heads of 64 channels\ndtype     rows x tokens  blocks ms  fused ms  fused / blocks"
    )
    for dtype in (torch.bfloat16, torch.float32):
        for rows, length in ((2, 1024), (2, 1568), (1, 4608), (1, 6272)):
            tensors = [torch.randn(rows, 6, length, 64, dtype=dtype) for _ in range(3)]
            name = f"{str(dtype)[6:]:8}  {rows} x {length:6}"
            compare(
                name, partial(forward_seconds, tensors=tensors), (attend_in_blocks, fused), arguments.pairs
            )


if __name__ == "__main__":
    main()
