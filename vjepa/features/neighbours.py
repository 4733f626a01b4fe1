"""The features most like a query, by comparing with all of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_ROWS = 16_384  # compared at once: features may lie in a file larger than memory
FLOOR = 1e-12  # of a norm: a feature that is the mean of all resembles no row


@dataclass(frozen=True)
class Neighbours:
    """The rows most like each query: `index` (Q, K), the best first, and their cosines `score` (Q, K)."""

    index: Int[Tensor, "q k"]
    score: Float[Tensor, "q k"]


@dataclass(frozen=True)
class SearchIndex:
    """Their `mean` (D,), and the `norm` (rows,) of each less it: what exact search needs beside the features.

    Features of a pre-trained encoder share a large constant component: with it every cosine is near 1.
    """

    mean: Float[Tensor, "d"]
    norm: Float[Tensor, "rows"]

    @classmethod
    def of(cls, rows: Float[Tensor, "rows d"]) -> SearchIndex:
        """Measure the features once, in chunks."""
        total = sum((part.double().sum(dim=0) for part in rows.split(CHUNK_ROWS)), torch.zeros(rows.shape[1]))
        # the only row is not compared with itself
        mean = (total / len(rows)).float() if len(rows) > 1 else torch.zeros(rows.shape[1])
        return cls(mean, torch.cat([(part.float() - mean).norm(dim=1) for part in rows.split(CHUNK_ROWS)]))

    def directions(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return features less the mean, of length 1: their products are compared."""
        return torch.nn.functional.normalize(features.float() - self.mean, dim=1, eps=FLOOR)

    def nearest(
        self, queries: Float[Tensor, "q d"], rows: Float[Tensor, "rows d"], *, count: int
    ) -> Neighbours:
        """Return the rows with the largest cosine to each query, both less the mean.

        Args:
            queries: Features (Q, D).
            rows: The features that were indexed.
            count: How many rows; fewer where there are fewer.
        """
        asked = self.directions(queries)
        scores = torch.cat(
            [
                asked @ ((part.float() - self.mean) / norm.clamp(min=FLOOR)[:, None]).T
                for part, norm in zip(rows.split(CHUNK_ROWS), self.norm.split(CHUNK_ROWS), strict=True)
            ],
            dim=1,
        )
        best = scores.topk(min(count, len(rows)), dim=1)
        return Neighbours(best.indices, best.values)
