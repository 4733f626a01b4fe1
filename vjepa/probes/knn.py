"""The k-NN probe: the nearest training clips vote, weighted by their similarity. Nothing is trained."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.probes.base import Probe

CHUNK = 1024  # clips that are compared with the bank at a time
LEAST_SHARE = 1e-6  # for a class without a vote: its logarithm must be finite


class KnnProbe(Probe):
    """Votes of the `k` training clips with the most similar mean token, each weighted by exp(cosine / temperature).

    Args:
        embed_dim: Width of a token.
        num_classes: Number of classes.
        num_clips: Training clips in its bank.
        k: Neighbours that vote; all clips if there are fewer.
        temperature: The lower, the more the nearest neighbours count.
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
        sizes = {"embed_dim": embed_dim, "num_classes": num_classes, "num_clips": num_clips}
        self.config: dict[str, Any] = {**sizes, "k": k, "temperature": temperature}
        self.num_classes, self.k, self.temperature = num_classes, min(k, num_clips), temperature
        self.register_buffer("bank", torch.zeros(num_clips, embed_dim))
        self.register_buffer("labels", torch.zeros(num_clips, dtype=torch.int64))

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Map tokens (B, N, D) to the logarithms of the vote shares (B, classes)."""
        return self.vote(*nearest_directions(directions(tokens), self.bank, self.k))

    def vote(self, cosines: Float[Tensor, "b n"], ids: Int[Tensor, "b n"]) -> Float[Tensor, "b classes"]:
        """Return the logarithms of the vote shares, from at least `k` neighbours of each clip, nearest first."""
        weights = ((cosines[:, : self.k] - 1) / self.temperature).exp()
        votes = weights.new_zeros(len(weights), self.num_classes)
        votes.scatter_add_(1, self.labels[ids[:, : self.k]], weights)
        return (votes / votes.sum(dim=1, keepdim=True)).clamp(min=LEAST_SHARE).log()


def directions(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
    """Return the mean token of each clip, scaled to length 1.

    >>> directions(torch.tensor([[[3.0, 0.0], [3.0, 8.0]]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    return F.normalize(tokens.mean(dim=1), dim=-1)


def nearest_directions(
    found: Float[Tensor, "b d"], bank: Float[Tensor, "clips d"], count: int
) -> tuple[Float[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Return the cosines and row ids of the nearest directions in a bank, nearest first.

    It compares a limited number of clips at a time, as all pairs may not fit in memory.
    """
    parts = [(part @ bank.T).topk(min(count, len(bank)), dim=1) for part in found.split(CHUNK)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])
