"""The order of a data set's clips: a pure function of seed, epoch and the identity of each row.

Weighted rows are drawn by their number instead, and streamed shards are arranged by their files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray
from torch.utils.data import Sampler

from vjepa.data.manifests.identity import mixed
from vjepa.data.manifests.rows import Manifest, ManifestError, Rows

log = logging.getLogger(__name__)


class SampleKey(NamedTuple):
    """The name of one sample, which determines all its random choices together with the seed.

    `draw` counts earlier samples of the row in the same epoch, `part` is the data set of a mixture.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # also the name of a method of tuples
    draw: int = 0
    part: int = 0


def row_weights(manifest: Manifest) -> Float64[ndarray, "n"] | None:
    """Return the column `weight` of a manifest, or `None` if all rows have the same weight.

    Raises:
        ManifestError: If a weight is negative, or no weight is above 0.
    """
    rows = manifest.rows if isinstance(manifest.rows, Rows) else Rows.of(manifest.rows)
    weights = rows.weight
    if not (weights >= 0).all() or not weights.any():
        row = manifest.rows[int(np.argmin(weights))]
        raise ManifestError(
            manifest.source, row.line, f"weight {row.weight:g}. Give weights from 0, some of them above 0"
        )
    return None if (weights == weights[0]).all() else weights


def epoch_order(identities: UInt64[ndarray, "n"], seed: int, epoch: int) -> Int64[ndarray, "n"]:
    """Return the rows in the order of one epoch; if some rows are removed, the others keep their order.

    >>> epoch_order(np.arange(5, dtype=np.uint64), seed=0, epoch=0).tolist()
    [1, 2, 3, 0, 4]
    """
    salt = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return np.argsort(mixed(identities ^ salt), kind="stable").astype(np.int64)


def weighted_order(weights: Float64[ndarray, "n"], seed: int, epoch: int) -> Int64[ndarray, "n"]:
    """Draw as many rows as there are, with replacement, by the rule of V-JEPA 2's released code.

    The weights are at least 0, and need not sum to 1.

    >>> weighted_order(np.array([0.0, 1.0, 1.0]), seed=0, epoch=0).tolist()
    [2, 1, 1]
    """
    generator = np.random.default_rng(seed + epoch)
    return generator.choice(len(weights), size=len(weights), p=weights / weights.sum(), replace=True)


def occurrences(rows: Int64[ndarray, "n"]) -> Int64[ndarray, "n"]:
    """Count, for each place, how often its row came before.

    >>> occurrences(np.array([3, 1, 3, 3, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    counts = np.empty(len(rows), np.int64)
    counts[order] = np.arange(len(rows)) - np.searchsorted(ordered, ordered, side="left")
    return counts


@dataclass(frozen=True, kw_only=True)
class ClipOrder:
    """The order in which one rank reads the clips of one data set, epoch after epoch.

    All ranks share an epoch's order; each reads every `world_size`-th clip. The clips of a batch of all ranks
    together do not depend on the number of ranks.

    Args:
        identities: Identities of the rows, from `row_identities`.
        seed: Seed of the order.
        weights: Weights of the rows, for draws with replacement; None reads each row once per epoch.
        rank: Index of this rank.
        world_size: Number of ranks.
        part: Index of this data set in a mixture.
        arranged: Returns the rows of an epoch in another order; its `str` names what that order depends on.
    """

    identities: UInt64[ndarray, "n"]
    seed: int
    weights: Float64[ndarray, "n"] | None = None
    rank: int = 0
    world_size: int = 1
    part: int = 0
    arranged: Callable[[int], Int64[ndarray, "n"]] | None = None

    def __len__(self) -> int:
        """Return the clips of an epoch on all ranks together."""
        return len(self.identities)

    def share(self, epoch: int) -> Share:
        """Return what this rank reads in `epoch`."""
        mine = slice(self.rank, None, self.world_size)
        if self.arranged is not None:
            return Share(epoch, self.part, self.arranged(epoch)[mine])
        if self.weights is None:
            return Share(epoch, self.part, epoch_order(self.identities, self.seed, epoch)[mine])
        rows = weighted_order(self.weights, self.seed, epoch)
        return Share(epoch, self.part, rows[mine], occurrences(rows)[mine])

    @property
    def arrangement(self) -> str:
        """The name of what the order depends on beside the seed; a place in one order has no meaning in another."""
        return "of files" if self.arranged is None else str(self.arranged)

    def rows_of(self, identities: Iterable[int]) -> list[int | None]:
        """Return the rows with these identities, `None` for an identity without a row."""
        rows = {int(identity): row for row, identity in enumerate(self.identities)}
        return [rows.get(identity) for identity in identities]


class Share(NamedTuple):
    """One epoch of one rank: row indices and, for weighted draws, how often each row came before."""

    epoch: int
    part: int
    rows: Int64[ndarray, "n"]
    draws: Int64[ndarray, "n"] | None = None

    def key(self, position: int) -> SampleKey:
        """Return the key at `position`; beyond the end the rows repeat, with new draws."""
        turn, at = divmod(position, len(self.rows))
        draw = turn if self.draws is None else int(self.draws[at]) + turn * len(self.rows)
        return SampleKey(self.epoch, int(self.rows[at]), draw, self.part)


class EvalBatches(Sampler[list[int]]):
    """The row indices of this rank's batches in the manifest's order: every `world_size`-th row.

    Every rank has the same number of batches. A rank without a clip for its last batch has an empty one, as it must
    take part in collective operations.
    """

    def __init__(self, num_clips: int, batch_size: int, rank: int, world_size: int) -> None:
        if num_clips < world_size:
            log.warning("clips to evaluate on %d devices: %d; the other devices wait", world_size, num_clips)
        self._mine = range(rank, num_clips, world_size)
        self._batch_size = batch_size
        self._longest = -(-num_clips // world_size)

    def __len__(self) -> int:
        return -(-self._longest // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self._longest, self._batch_size):
            yield list(self._mine[start : start + self._batch_size])
