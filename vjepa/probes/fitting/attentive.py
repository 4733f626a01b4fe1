"""Training of attentive probes: a grid of them side by side on the same minibatches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vjepa.optim import Cosine
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe, StandardizedProbe, clips_at_once
from vjepa.probes.fitting.grid import ProbeGrid
from vjepa.probes.fitting.trials import MARKS, Mark, ProbeData, ProbeSettings, Trial, loss_and_accuracy

HEAD_DIM = 64  # channels a head in all published encoders of which probes are known, but the largest
EPOCHS, LEAST_STEPS = 20, 600  # the published protocol's passes; small data need more steps than that
LOOKED_AT = 4096  # training clips on which the loss is taken at a mark


def fit_attentive(
    data: ProbeData,
    rows: Int[Tensor, "rows"],
    held: Int[Tensor, "held"],
    *,
    settings: ProbeSettings,
    num_steps: int,
    seed: int,
) -> list[Trial]:
    """Attentive probes trained with every pair of learning rate and weight decay of `settings`.

    Args:
        data: Labelled tokens.
        rows: Clips to train on.
        held: Clips to measure on.
        settings: The grid, and what does not vary in it.
        num_steps: Optimiser steps.
        seed: Of the first weights, which all probes share, and of the order of the clips.
    """
    points = points_of(settings)
    heads = [new_probe(data, settings, seed) for _ in points]
    grid = ProbeGrid(heads)
    side_by_side = SideBySide(
        points=points,
        probes=[StandardizedProbe(data.standardize, head) for head in heads],
        groups=[{"params": w, "scale": 1.0, **p} for w, p in zip(grid.weights, points, strict=True)],
        scores=lambda tokens: grid(tokens, data.standardize),  # once for all probes
        backward=grid.backward,
    )
    return train_side_by_side(
        data, rows, held, side_by_side, settings=settings, num_steps=num_steps, seed=seed
    )


@dataclass(frozen=True)
class SideBySide:
    """Probes that are trained on the same minibatches, a `points` each.

    `groups` are the optimiser's, with peak `lr` and its `scale`; `scores` gives the logits of all from tokens as they
    are kept; `backward` brings the gradients of a loss to the optimiser.
    """

    points: list[dict[str, float]]
    probes: list[Probe]
    groups: list[dict[str, Any]]
    scores: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], None] = Tensor.backward


def points_of(settings: ProbeSettings) -> list[dict[str, float]]:
    """Every pair of learning rate and weight decay."""
    pairs = itertools.product(settings.lr, settings.weight_decay)
    return [{"lr": lr, "weight_decay": decay} for lr, decay in pairs]


def train_side_by_side(
    data: ProbeData,
    rows: Int[Tensor, "rows"],
    held: Int[Tensor, "held"],
    trained: SideBySide,
    *,
    settings: ProbeSettings,
    num_steps: int,
    seed: int,
) -> list[Trial]:
    """AdamW with a cosine to 0; arguments as of `fit_attentive`."""
    peaks = [group["lr"] * group.pop("scale") for group in trained.groups]
    optimizer = torch.optim.AdamW(trained.groups, fused=data.device.type in ("cpu", "cuda"))
    cosine = Cosine(start=1.0, end=0.0)
    generator = torch.Generator().manual_seed(seed)
    marks: list[list[Mark]] = []
    marked = {math.ceil(share * num_steps) for share in MARKS}
    batches = _minibatches(rows, settings.batch_size, generator)
    for step, batch in enumerate(itertools.islice(batches, num_steps)):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * cosine.value(step - 1, num_steps)
        logits = trained.scores(data.tokens[batch].to(data.device))
        optimizer.zero_grad()
        trained.backward(_losses(logits, data.labels[batch].to(data.device)).sum())
        optimizer.step()
        if step + 1 in marked:
            marks.append(_mark(data, trained.scores, rows[:LOOKED_AT], held, step + 1))
    return [
        Trial(point, probe, found)
        for point, probe, found in zip(trained.points, trained.probes, zip(*marks, strict=True), strict=True)
    ]


def steps_for(settings: ProbeSettings, num_clips: int) -> int:
    """Optimiser steps: as asked for, or 20 passes but at least 600."""
    return settings.num_steps or max(LEAST_STEPS, EPOCHS * math.ceil(num_clips / settings.batch_size))


def heads_for(embed_dim: int) -> int:
    """As many heads as divide `embed_dim` into at least 64 channels each.

    >>> heads_for(192), heads_for(48), heads_for(224)
    (3, 1, 2)
    """
    return max(h for h in range(1, max(embed_dim // HEAD_DIM, 1) + 1) if embed_dim % h == 0)


def new_probe(data: ProbeData, settings: ProbeSettings, seed: int) -> AttentiveProbe:
    """An attentive probe for these tokens, its weights drawn by `seed`."""
    embed_dim = data.tokens.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        probe = AttentiveProbe(
            embed_dim=embed_dim,
            num_classes=data.num_classes,
            num_heads=settings.num_heads or heads_for(embed_dim),
            depth=settings.depth,
        )
    return probe.to(data.device)


def _minibatches(
    rows: Int[Tensor, "rows"], batch_size: int, generator: torch.Generator
) -> Iterator[Int[Tensor, "batch"]]:
    """Without end: each pass in a new order, in whole batches unless there are too few clips for one."""
    while True:
        order = rows[torch.randperm(len(rows), generator=generator)]
        yield from (b for b in order.split(batch_size) if len(b) == min(batch_size, len(rows)))


def _losses(logits: Float[Tensor, "heads b classes"], labels: Int[Tensor, "b"]) -> Float[Tensor, "heads"]:
    """Cross-entropy of each head."""
    shares = logits.log_softmax(dim=-1)
    return -shares[:, torch.arange(len(labels), device=labels.device), labels].mean(dim=1)


@torch.no_grad()
def _mark(
    data: ProbeData,
    scores: Callable[[Tensor], Tensor],
    rows: Int[Tensor, "rows"],
    held: Int[Tensor, "held"],
    step: int,
) -> list[Mark]:
    """Where each head stands, from one reading of the tokens."""
    chunks = torch.cat([rows, held]).split(clips_at_once(data.tokens))
    scored = [scores(data.tokens[chunk].to(data.device)).cpu() for chunk in chunks]
    marks = []
    for logits in torch.cat(scored, dim=1):
        train_loss, train_accuracy = loss_and_accuracy(logits[: len(rows)], data.labels[rows])
        held_loss, held_accuracy = loss_and_accuracy(logits[len(rows) :], data.labels[held])
        marks.append(Mark(step, train_loss, train_accuracy, held_loss, held_accuracy))
    return marks
