"""The order of a data set's clips: a pure function of seed, epoch and the identity of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray

from vjepa.data.manifests.identity import mixed
from vjepa.data.manifests.rows import Manifest, ManifestError, Rows


class SampleKey(NamedTuple):
    """Names one sample: all its random choices follow from it and the seed.

    `draw` counts how often the row came before in the same epoch, `part` is the data set of a mixture.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # also the name of a method of tuples
    draw: int = 0
    part: int = 0


def row_weights(manifest: Manifest) -> Float64[ndarray, "n"] | None:
    """The column `weight` of a manifest; None where all rows have the same.

    Raises:
        ManifestError: If a weight is negative, or none is above 0.
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
    """Rows in the order of one epoch; without some rows, the others keep their order.

    Args:
        identities: Of the rows, from `row_identities`.
        seed: Of the run.
        epoch: Counted from 0.

    Returns:
        (n,) row numbers.

    >>> epoch_order(np.arange(5, dtype=np.uint64), seed=0, epoch=0).tolist()
    [4, 1, 0, 3, 2]
    """
    salt = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return np.argsort(mixed(identities ^ salt), kind="stable").astype(np.int64)


def weighted_order(weights: Float64[ndarray, "n"], seed: int, epoch: int) -> Int64[ndarray, "n"]:
    """As many draws as there are rows, with replacement, by the published rule (spec.md section 5, V-JEPA 2).

    Args:
        weights: Of the rows, from 0; they need not sum to 1.
        seed: Of the run.
        epoch: Counted from 0.

    Returns:
        (n,) row numbers.

    >>> weighted_order(np.array([0.0, 1.0, 1.0]), seed=0, epoch=0).tolist()
    [2, 1, 1]
    """
    generator = np.random.default_rng(seed + epoch)
    return generator.choice(len(weights), size=len(weights), p=weights / weights.sum(), replace=True)


def occurrences(rows: Int64[ndarray, "n"]) -> Int64[ndarray, "n"]:
    """For each place, how often its row came before.

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
    """The clips of one data set that one rank reads, epoch after epoch.

    All ranks share an epoch's order, every `world_size`-th clip each: the clips of a batch of all ranks
    together do not depend on how many ranks there are.

    Args:
        identities: Of the rows, from `row_identities`.
        weights: Of the rows, for draws with replacement; None takes each row once an epoch.
        seed: Of the order.
        rank: Which rank this is.
        world_size: How many ranks there are.
        part: Which data set of a mixture this is.
        arranged: Gives the rows of an epoch in an order of its own, and names by its `str` what that depends on.
    """

    identities: UInt64[ndarray, "n"]
    seed: int
    weights: Float64[ndarray, "n"] | None = None
    rank: int = 0
    world_size: int = 1
    part: int = 0
    arranged: Callable[[int], Int64[ndarray, "n"]] | None = None

    def __len__(self) -> int:
        """Clips of an epoch on all ranks together."""
        return len(self.identities)

    def share(self, epoch: int) -> Share:
        """What this rank reads in `epoch`."""
        mine = slice(self.rank, None, self.world_size)
        if self.arranged is not None:
            return Share(epoch, self.part, self.arranged(epoch)[mine])
        if self.weights is None:
            return Share(epoch, self.part, epoch_order(self.identities, self.seed, epoch)[mine])
        rows = weighted_order(self.weights, self.seed, epoch)
        return Share(epoch, self.part, rows[mine], occurrences(rows)[mine])

    @property
    def arrangement(self) -> str:
        """What the order depends on beside the seed; a place in it means nothing in another one."""
        return "of files" if self.arranged is None else str(self.arranged)

    def rows_of(self, identities: Iterable[int]) -> list[int | None]:
        """The rows that have these identities, None where there is no such row."""
        rows = {int(identity): row for row, identity in enumerate(self.identities)}
        return [rows.get(identity) for identity in identities]


class Share(NamedTuple):
    """One epoch of one rank: row numbers and, of weighted draws, how often each row came before."""

    epoch: int
    part: int
    rows: Int64[ndarray, "n"]
    draws: Int64[ndarray, "n"] | None = None

    def key(self, place: int) -> SampleKey:
        """The sample at `place`; beyond the end, the share begins again, with other clips of its videos."""
        turn, at = divmod(place, len(self.rows))
        draw = turn if self.draws is None else int(self.draws[at]) + turn * len(self.rows)
        return SampleKey(self.epoch, int(self.rows[at]), draw, self.part)
