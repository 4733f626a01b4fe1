"""Times attention on this CPU, forward and backward: plain products against torch's fused kernel.

python tools/bench_attention.py [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention as two products."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores.softmax(dim=-1) @ value


def seconds(kernel: Kernel, tensors: list[Tensor]) -> float:
    """Time of one forward and backward."""
    started = time.perf_counter()
    kernel(*tensors).sum().backward()
    return time.perf_counter() - started


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
            pairs = []
            for _ in range(arguments.pairs + 2):
                pairs.append((seconds(plain, tensors), seconds(F.scaled_dot_product_attention, tensors)))
            pairs = pairs[2:]  # the first are warm-up
            ours, theirs = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(fused / mine for mine, fused in pairs)
            print(f"{str(dtype)[6:]:8}  {length:6}  {ours:8.2f}  {theirs:8.2f}  {ratio:8.2f}")


if __name__ == "__main__":
    main()
