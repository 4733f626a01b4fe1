"""The k-NN probe: the nearest training clips vote, weighted by how near they are. Nothing is trained."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.probes.base import Probe, StandardizedProbe, clips_at_once
from vjepa.probes.fitting.trials import Mark, ProbeData, ProbeSettings, Trial, loss_and_accuracy

AT_ONCE = 1024  # clips that are compared with the bank at a time
LEAST_SHARE = 1e-6  # of a class that no neighbour voted for: its logarithm must be finite


class KnnProbe(Probe):
    """Votes of the `k` training clips whose mean token points most nearly the same way, exp(cosine / temperature) each.

    Args:
        embed_dim: Width of a token.
        num_classes: Number of classes.
        num_clips: Training clips it holds.
        k: Neighbours that vote; all clips, where there are fewer.
        temperature: The lower, the more the nearest count.
    """

    bank: Tensor
    labels: Tensor

    def __init__(
        self, *, embed_dim: int, num_classes: int, num_clips: int, k: int = 20, temperature: float = 0.07
    ) -> None:
        super().__init__()
        if k < 1 or temperature <= 0:
            raise SettingError(
                f"k {k}, temperature {temperature}: give k of at least 1, a temperature above 0."
            )
        self.num_classes, self.k, self.temperature = num_classes, min(k, num_clips), temperature
        self.register_buffer("bank", torch.zeros(num_clips, embed_dim))
        self.register_buffer("labels", torch.zeros(num_clips, dtype=torch.int64))

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Tokens (B, N, D) to logarithms of the shares of the vote (B, classes)."""
        return self.vote(*nearest(directions(tokens), self.bank, self.k))

    def vote(self, cosines: Float[Tensor, "b n"], places: Int[Tensor, "b n"]) -> Float[Tensor, "b classes"]:
        """Logarithms of the shares of the vote, from at least `k` neighbours of each clip, the nearest first."""
        weights = ((cosines[:, : self.k] - 1) / self.temperature).exp()
        votes = weights.new_zeros(len(weights), self.num_classes)
        votes.scatter_add_(1, self.labels[places[:, : self.k]], weights)
        return (votes / votes.sum(dim=1, keepdim=True)).clamp(min=LEAST_SHARE).log()


def directions(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
    """The mean token of each clip, brought to length 1.

    >>> directions(torch.tensor([[[3.0, 0.0], [3.0, 8.0]]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    return F.normalize(tokens.mean(dim=1), dim=-1)


def nearest(
    found: Float[Tensor, "b d"], bank: Float[Tensor, "clips d"], count: int
) -> tuple[Float[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Cosines and places of the nearest of a bank, nearest first, of few clips at a time: all pairs may be too many.

    Args:
        found: Directions (B, D).
        bank: Directions (clips, D).
        count: How many, if there are so many.
    """
    parts = [(part @ bank.T).topk(min(count, len(bank)), dim=1) for part in found.split(AT_ONCE)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


@torch.no_grad()
def fit_knn(
    data: ProbeData, rows: Int[Tensor, "rows"], held: Int[Tensor, "held"], *, settings: ProbeSettings
) -> list[Trial]:
    """A probe for every pair of `k` and `temperature`, all on one bank of training clips.

    Args:
        data: Labelled tokens.
        rows: Clips that vote.
        held: Clips to measure on.
        settings: The grid.
    """
    chunks = data.tokens.split(clips_at_once(data.tokens))
    found = torch.cat([directions(data.standardize(chunk.to(data.device))) for chunk in chunks])
    cosines, places = nearest(found, found[rows], max(settings.k))
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
        logits = probe.vote(cosines, places).cpu()
        mark = Mark(
            0,
            *loss_and_accuracy(logits[rows], data.labels[rows]),
            *loss_and_accuracy(logits[held], data.labels[held]),
        )
        setting = {"k": k, "temperature": temperature}
        trials.append(Trial(setting, StandardizedProbe(data.standardize, probe), (mark,)))
    return trials
