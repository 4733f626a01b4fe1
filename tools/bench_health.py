"""Cost of the health figures: a run of the quickstart's recipe with every step logged, figure by figure.

python tools/bench_health.py [--steps 20] [--log_every 20]

Times the figures and the rest of the step in one run, on noise, and prints medians and the share of a step that they
take when they are made every --log_every steps.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from typing import Any

import torch

from vjepa.masks import Causal, TubeBlocks
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import LatentPrediction
from vjepa.training.health import feature_health, input_health, mask_geometry, network_health
from vjepa.types import ClipBatch

log = logging.getLogger("bench_health")

ROTARY: dict[str, Any] = {"position": "rope_interleaved"}


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--log_every", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=64)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    objective = LatentPrediction(
        encoder=VideoEncoder(
            img_size=32, patch_size=8, num_frames=16, tubelet_size=4, embed_dim=128, depth=4, num_heads=2, **ROTARY
        ),
        predictor=lambda width: Predictor(width, embed_dim=64, depth=2, num_heads=1, **ROTARY),
        masks=[TubeBlocks(num_blocks=8, spatial_scale=(0.15, 0.15)), Causal(past=(0.25, 0.6))],
    )  # fmt: skip
    count = given.batch_size
    ids = torch.arange(count)
    batch = ClipBatch(video=torch.randn(count, 3, 16, 32, 32), label=ids, index=ids)
    networks = (objective.context_encoder, objective.predictor)
    optimizer = torch.optim.AdamW([p for network in networks for p in network.parameters()])
    steps, figures, guards = [], [], []
    for number in range(given.steps):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            output = objective(batch, torch.Generator().manual_seed(number))
        output.loss.backward()
        forward = time.perf_counter()
        torch.nn.utils.get_total_norm(
            [p.grad for n in networks for p in n.parameters() if p.grad is not None]
        )
        guard = time.perf_counter()
        assert output.grid is not None
        found = feature_health(output) | input_health(batch) | mask_geometry(output.masks, output.grid)
        found |= network_health(objective)
        health = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad()
        end = time.perf_counter()
        steps.append(forward - start + end - health)
        guards.append(guard - forward)
        figures.append(health - guard)
    step, guard, health = (statistics.median(times[2:]) for times in (steps, guards, figures))
    share = (health / given.log_every + guard) / step
    log.info("step %.1f ms, guard %.2f ms, figures %.1f ms", 1e3 * step, 1e3 * guard, 1e3 * health)
    log.info("with figures every %d steps: %.2f %% of a step", given.log_every, 100 * share)


if __name__ == "__main__":
    main()
