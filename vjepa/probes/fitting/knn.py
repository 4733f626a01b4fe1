"""The grid of k-NN probes: the training clips are compared once for every `k` and temperature."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Int
from torch import Tensor

from vjepa.probes.base import StandardizedProbe, clips_per_chunk
from vjepa.probes.fitting.trials import ProbeData, ProbeSettings, Trial, mark_of
from vjepa.probes.knn import KnnProbe, directions, nearest_directions


@torch.no_grad()
def fit_knn(
    data: ProbeData, rows: Int[Tensor, "rows"], held: Int[Tensor, "held"], *, settings: ProbeSettings
) -> list[Trial]:
    """Return a probe for every pair of `k` and `temperature`, all on one bank of training clips.

    The clips `rows` vote; those `held` are measured.
    """
    chunks = data.tokens.split(clips_per_chunk(data.tokens))
    found = torch.cat([directions(data.standardize(chunk.to(data.device))) for chunk in chunks])
    cosines, ids = nearest_directions(found, found[rows], max(settings.k))
    trials = []
    for k, temperature in itertools.product(settings.k, settings.temperature):
        probe = KnnProbe(
            embed_dim=found.shape[1],
            num_classes=data.num_classes,
            num_clips=len(rows),
            k=k,
            temperature=temperature,
        )
        probe.bank, probe.labels = found[rows], data.labels[rows].to(data.device)
        mark = mark_of(0, probe.vote(cosines, ids).cpu(), data.labels, rows, held)
        setting = {"k": k, "temperature": temperature}
        trials.append(Trial(setting, StandardizedProbe(data.standardize, probe), (mark,)))
    return trials
