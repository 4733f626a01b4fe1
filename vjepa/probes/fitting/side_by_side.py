"""Training by gradient: a grid of probes side by side on the same minibatches."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vjepa.optim import Cosine
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe, StandardizedProbe, clips_per_chunk
from vjepa.probes.fitting.blocks import FinetunedProbe, TunedBlocks
from vjepa.probes.fitting.grid import ProbeGrid
from vjepa.probes.fitting.trials import MARKS, Mark, ProbeData, ProbeSettings, Trial, mark_of
from vjepa.probes.random_init import seeded

HEAD_DIM = 64  # channels per head in every published encoder that has a probe, except the largest
EPOCHS, LEAST_STEPS = 20, 600  # the published passes; small data sets need more steps than that
MEASURED = 4096  # training clips on which the loss is measured at a mark


@dataclass(frozen=True)
class SideBySide:
    """Probes that are trained on the same minibatches, one per point of the grid.

    `groups` are the optimiser's, with peak `lr`; `scores` gives the logits of all probes from the
    tokens; `backward` brings the gradients of a loss to the optimiser.
    """

    probes: Sequence[Probe]
    groups: list[dict[str, Any]]
    scores: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], None] = Tensor.backward


@dataclass(frozen=True)
class Plan:
    """How the probes are trained: `rows` to train on, `held` to measure on, the grid, the steps and the seed."""

    rows: Int[Tensor, "rows"]
    held: Int[Tensor, "held"]
    settings: ProbeSettings
    num_steps: int
    seed: int


def fit_attentive(data: ProbeData, plan: Plan) -> list[Trial]:
    """Train an attentive probe with every pair of learning rate and weight decay.

    The seed of the plan draws the first weights, which all probes share, and the order of the clips.
    """
    points = plan.settings.points
    heads = [_attentive(data, plan) for _ in points]
    grid = ProbeGrid(heads)
    side_by_side = SideBySide(
        probes=[StandardizedProbe(data.standardize, head) for head in heads],
        groups=[{"params": w, **p} for w, p in zip(grid.weights, points, strict=True)],
        scores=lambda tokens: grid(tokens, data.standardize),  # once for all probes
        backward=grid.backward,
    )
    return train_side_by_side(data, side_by_side, plan)


def fit_own(data: ProbeData, plan: Plan, *, probe_class: Callable[..., Probe]) -> list[Trial]:
    """Train a probe of any class with every pair of learning rate and weight decay."""
    make = partial(probe_class, embed_dim=data.tokens.shape[-1], num_classes=data.num_classes)
    points = plan.settings.points
    probes = [StandardizedProbe(data.standardize, seeded(make, plan.seed).to(data.device)) for _ in points]
    groups = [
        {"params": list(probe.parameters()), **point} for probe, point in zip(probes, points, strict=True)
    ]
    return train_side_by_side(data, SideBySide(probes, groups, _stacked(probes)), plan)


def fit_finetune(data: ProbeData, plan: Plan, *, tuned_blocks: TunedBlocks) -> list[Trial]:
    """Train an attentive probe and a copy of `tuned_blocks` together, for every point of the grid.

    Tokens are standardised by the output of the blocks before training. The probes share nothing but the minibatches,
    so the memory holds a copy of the blocks per point of the grid.

    `tail_scale` times the learning rate is that of the blocks.
    """
    points, settings = plan.settings.points, plan.settings
    with torch.no_grad():
        first = data.tokens[plan.rows[: clips_per_chunk(data.tokens)]].to(data.device)
        data.standardize.measure(tuned_blocks.to(data.device)(first))
    probes = [
        FinetunedProbe(
            copy.deepcopy(tuned_blocks), StandardizedProbe(data.standardize, _attentive(data, plan))
        )
        for _ in points
    ]
    groups = []
    for probe, point in zip(probes, points, strict=True):
        slower = point | {"lr": point["lr"] * settings.tail_scale}
        groups.append({"params": list(probe.head.parameters()), **point})
        groups.append({"params": list(probe.tuned_blocks.parameters()), **slower})
    return train_side_by_side(data, SideBySide(probes, groups, _stacked(probes)), plan)


def train_side_by_side(data: ProbeData, trained: SideBySide, plan: Plan) -> list[Trial]:
    """Train with AdamW and a cosine to 0. The seed of the plan draws the order of the clips."""
    num_steps, settings = plan.num_steps, plan.settings
    peaks = [group["lr"] for group in trained.groups]
    optimizer = torch.optim.AdamW(trained.groups, fused=data.device.type in ("cpu", "cuda"))
    cosine = Cosine(start=1.0, end=0.0)
    generator = torch.Generator().manual_seed(plan.seed)
    marks: list[list[Mark]] = []
    marked = {math.ceil(share * num_steps) for share in MARKS}
    batches = _minibatches(plan.rows, settings.batch_size, generator)
    for step, batch in enumerate(itertools.islice(batches, num_steps)):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            # `Cosine` counts from 1: step 0 gets the peak
            group["lr"] = peak * cosine.value(step - 1, num_steps)
        logits = trained.scores(data.tokens[batch].to(data.device))
        optimizer.zero_grad()
        trained.backward(_losses(logits, data.labels[batch].to(data.device)).sum())
        optimizer.step()
        if step + 1 in marked:
            marks.append(_marks(data, trained.scores, plan.rows[:MEASURED], plan.held, step + 1))
    by_probe = zip(settings.points, trained.probes, zip(*marks, strict=True), strict=True)
    return [Trial(point, probe, found) for point, probe, found in by_probe]


def steps_for(settings: ProbeSettings, num_videos: int) -> int:
    """Return the optimiser steps: those given, or 20 passes but at least 600."""
    return settings.num_steps or max(LEAST_STEPS, EPOCHS * math.ceil(num_videos / settings.batch_size))


def heads_for(embed_dim: int) -> int:
    """Return the most heads that divide `embed_dim` into at least 64 channels each.

    >>> heads_for(192), heads_for(48), heads_for(224)
    (3, 1, 2)
    """
    return max(h for h in range(1, max(embed_dim // HEAD_DIM, 1) + 1) if embed_dim % h == 0)


def _attentive(data: ProbeData, plan: Plan) -> AttentiveProbe:
    embed_dim, settings = data.tokens.shape[-1], plan.settings
    make = partial(
        AttentiveProbe,
        embed_dim=embed_dim,
        num_classes=data.num_classes,
        num_heads=settings.num_heads or heads_for(embed_dim),
        depth=settings.depth,
    )
    return seeded(make, plan.seed).to(data.device)


def _stacked(probes: Sequence[Probe]) -> Callable[[Tensor], Tensor]:
    return lambda tokens: torch.stack([probe(tokens) for probe in probes])


def _minibatches(
    rows: Int[Tensor, "rows"], batch_size: int, generator: torch.Generator
) -> Iterator[Int[Tensor, "batch"]]:
    """Yield minibatches without end, each pass in a new order, all full unless there are too few clips for one."""
    while True:
        order = rows[torch.randperm(len(rows), generator=generator)]
        yield from (b for b in order.split(batch_size) if len(b) == min(batch_size, len(rows)))


def _losses(logits: Float[Tensor, "heads b classes"], labels: Int[Tensor, "b"]) -> Float[Tensor, "heads"]:
    """Return the cross-entropy of each probe."""
    log_probabilities = logits.log_softmax(dim=-1)
    return -log_probabilities[:, torch.arange(len(labels), device=labels.device), labels].mean(dim=1)


@torch.no_grad()
def _marks(
    data: ProbeData,
    scores: Callable[[Tensor], Tensor],
    rows: Int[Tensor, "rows"],
    held: Int[Tensor, "held"],
    step: int,
) -> list[Mark]:
    """Measure every probe, with one pass over the tokens."""
    measured = torch.cat([rows, held])
    chunks = measured.split(clips_per_chunk(data.tokens))
    scored = [scores(data.tokens[chunk].to(data.device)).cpu() for chunk in chunks]
    places = torch.arange(len(measured))
    return [
        mark_of(step, logits, data.labels[measured], places[: len(rows)], places[len(rows) :])
        for logits in torch.cat(scored, dim=1)
    ]
