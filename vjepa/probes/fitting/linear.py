"""Training of linear probes: full-batch L-BFGS on pooled features, with the same result every time."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from vjepa.probes.base import StandardizedProbe, clips_per_chunk
from vjepa.probes.fitting.trials import MARKS, Mark, ProbeData, ProbeSettings, Trial, loss_and_accuracy
from vjepa.probes.linear import LinearProbe, pool_tokens

VARIANCE_FLOOR = 1e-8


def fit_linear(
    data: ProbeData, rows: Int[Tensor, "rows"], held: Int[Tensor, "held"], *, settings: ProbeSettings
) -> list[Trial]:
    """Train a linear probe to its optimum with every penalty of `settings`.

    For the fit, the pooled features are standardised once more, as a mean of tokens varies less than a maximum and
    the penalty must treat both alike. This standardisation is then folded into the weights.
    """
    pooled = _pooled(data)
    mean = pooled[rows].mean(dim=0)
    std = (pooled[rows].var(dim=0, correction=0) + VARIANCE_FLOOR).sqrt()
    pooled = (pooled - mean) / std
    trials = []
    for l2 in settings.l2:
        weight = torch.zeros(data.num_classes, pooled.shape[1], dtype=pooled.dtype, requires_grad=True)
        bias = torch.zeros(data.num_classes, dtype=pooled.dtype, requires_grad=True)
        marks = _minimise(pooled, data.labels, rows, held, weight, bias, l2, settings.max_iterations)
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and replaced below
            probe = LinearProbe(embed_dim=data.tokens.shape[-1], num_classes=data.num_classes)
        with torch.no_grad():
            probe.linear.weight.copy_(weight / std)
            probe.linear.bias.copy_(bias - (weight / std) @ mean)
        trials.append(Trial({"l2": l2}, StandardizedProbe(data.standardize, probe).to(data.device), marks))
    return trials


@torch.no_grad()
def _pooled(data: ProbeData) -> Float64[Tensor, "clips f"]:
    chunks = data.tokens.split(clips_per_chunk(data.tokens))
    standardized = (data.standardize(chunk.to(data.device)) for chunk in chunks)
    return torch.cat([pool_tokens(chunk, "mean_max").cpu().double() for chunk in standardized])


def _minimise(
    pooled: Float64[Tensor, "clips f"],
    labels: Int[Tensor, "clips"],
    rows: Int[Tensor, "rows"],
    held: Int[Tensor, "held"],
    weight: Float[Tensor, "classes f"],
    bias: Float[Tensor, "classes"],
    l2: float,
    max_iterations: int,
) -> tuple[Mark, ...]:
    """Bring weight and bias to the optimum, in place."""
    features, targets = pooled[rows], labels[rows]

    def penalised() -> Tensor:
        return F.cross_entropy(F.linear(features, weight, bias), targets) + l2 / 2 * weight.square().sum()

    optimizer = torch.optim.LBFGS([weight, bias], line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = penalised()
        loss.backward()
        return loss

    marks, done = [], 0
    for share in MARKS:
        until = math.ceil(share * max_iterations)
        optimizer.param_groups[0].update(max_iter=until - done, max_eval=2 * (until - done))
        optimizer.step(closure)
        done = until
        with torch.no_grad():
            _, train_accuracy = loss_and_accuracy(F.linear(features, weight, bias), targets)
            held_loss, held_accuracy = loss_and_accuracy(F.linear(pooled[held], weight, bias), labels[held])
            marks.append(Mark(done, float(penalised()), train_accuracy, held_loss, held_accuracy))
    return tuple(marks)
