"""Training of attentive probes: a grid of them side by side on the same minibatches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from vjepa.optim import Cosine
from vjepa.probes.attentive import AttentiveProbe, logits_together
from vjepa.probes.base import StandardizedProbe
from vjepa.probes.results import logits_of
from vjepa.probes.trials import MARKS, Mark, ProbeData, ProbeSettings, Trial, loss_and_accuracy

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
    points = [
        {"lr": lr, "weight_decay": decay}
        for lr, decay in itertools.product(settings.lr, settings.weight_decay)
    ]
    heads = [_new_probe(data, settings, seed) for _ in points]
    probes = [StandardizedProbe(data.standardize, head) for head in heads]
    groups = [{"params": list(head.parameters()), **point} for head, point in zip(heads, points, strict=True)]
    optimizer = torch.optim.AdamW(groups, fused=data.device.type in ("cpu", "cuda"))
    cosine = Cosine(start=1.0, end=0.0)
    generator = torch.Generator().manual_seed(seed)
    marks: list[list[Mark]] = [[] for _ in points]
    marked = {math.ceil(share * num_steps) for share in MARKS}
    batches = _minibatches(rows, settings.batch_size, generator)
    for step, batch in enumerate(itertools.islice(batches, num_steps)):
        for group, point in zip(optimizer.param_groups, points, strict=True):
            group["lr"] = point["lr"] * cosine.value(step - 1, num_steps)
        tokens = data.standardize(data.tokens[batch].to(data.device))  # once for all probes
        labels = data.labels[batch].to(data.device)
        loss = torch.stack([F.cross_entropy(x, labels) for x in logits_together(heads, tokens)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step + 1 in marked:
            for probe, found in zip(probes, marks, strict=True):
                found.append(_mark(data, probe, rows[:LOOKED_AT], held, step + 1))
    return [Trial(point, p, tuple(m)) for point, p, m in zip(points, probes, marks, strict=True)]


def steps_for(settings: ProbeSettings, num_clips: int) -> int:
    """Optimiser steps: as asked for, or 20 passes but at least 600."""
    return settings.num_steps or max(LEAST_STEPS, EPOCHS * math.ceil(num_clips / settings.batch_size))


def heads_for(embed_dim: int) -> int:
    """As many heads as divide `embed_dim` into at least 64 channels each.

    >>> heads_for(192), heads_for(48), heads_for(224)
    (3, 1, 2)
    """
    return max(h for h in range(1, max(embed_dim // HEAD_DIM, 1) + 1) if embed_dim % h == 0)


def _new_probe(data: ProbeData, settings: ProbeSettings, seed: int) -> AttentiveProbe:
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


def _mark(
    data: ProbeData,
    probe: StandardizedProbe,
    rows: Int[Tensor, "rows"],
    held: Int[Tensor, "held"],
    step: int,
) -> Mark:
    logits = logits_of(probe, data.tokens, torch.cat([rows, held]), data.device)
    train_loss, train_accuracy = loss_and_accuracy(logits[: len(rows)], data.labels[rows])
    held_loss, held_accuracy = loss_and_accuracy(logits[len(rows) :], data.labels[held])
    return Mark(step, train_loss, train_accuracy, held_loss, held_accuracy)
