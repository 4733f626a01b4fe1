"""The order of a data set's clips: a pure function of seed, epoch and the identity of each row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64
from numpy import ndarray

from vjepa.data.manifest import Manifest, ManifestError
from vjepa.data.manifest_rows import Rows, Texts
from vjepa.data.remote import is_url, member_of


class SampleKey(NamedTuple):
    """Names one sample: all its random choices follow from it and the seed.

    `draw` counts how often the row came before in the same epoch, `part` is the data set of a mixture.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # also the name of a method of tuples
    draw: int = 0
    part: int = 0


def row_identities(manifest: Manifest) -> UInt64[ndarray, "n"]:
    """64 bits that name each row: its path from the manifest's folder on, its start, which copy it is."""
    rows = manifest.rows if isinstance(manifest.rows, Rows) else Rows.of(manifest.rows)
    names = _names(rows, manifest.base)
    starts = [None if start != start else start for start in rows.start.tolist()]
    digests = (_digest(b"%b\n%a\n0" % named) for named in zip(names, starts, strict=True))
    identities = np.fromiter((int.from_bytes(digest, "little") for digest in digests), np.uint64, len(rows))
    ordered = np.sort(identities)
    several = np.isin(identities, ordered[1:][ordered[1:] == ordered[:-1]])
    copies: Counter[bytes] = Counter()
    for i in np.flatnonzero(several).tolist():
        key = b"%b\n%a\n" % (names[i], starts[i])
        identities[i] = int.from_bytes(_digest(key + b"%d" % copies[key]), "little")
        copies[key] += 1
    return identities


def _digest(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=8).digest()


def _names(rows: Rows, base: str) -> list[bytes]:
    """Each row's path below `base`, in POSIX form; paths that are so as they are written are taken at once."""
    names = list(rows.path.encoded())
    plain = _plainly_written(rows.path) if rows.base == base else np.zeros(len(rows), bool)
    for i in np.flatnonzero(~plain).tolist():
        names[i] = name_in(rows.path_of(i), base).encode("utf-8", "surrogateescape")
    return names


def name_in(path: str, base: str) -> str:
    """A path from the manifest's folder on; a member of a shard has the name it had before it was put there."""
    if (member := member_of(path)) is not None:
        return member.name
    if is_url(path):
        return path.removeprefix(f"{base}/") if base else path
    below = base and PurePath(path).is_relative_to(base)
    return (PurePath(path).relative_to(base) if below else PurePath(path)).as_posix()


def _plainly_written(paths: Texts) -> Bool[ndarray, "n"]:
    """Whether a path is relative, and no part of it begins with a dot or is empty."""
    block = np.frombuffer(paths.block, np.uint8)
    lengths = np.diff(paths.ends, prepend=0)
    begins = np.zeros(len(block), bool)
    begins[1:] = block[:-1] == ord("/")
    begins[(paths.ends - lengths)[lengths > 0]] = True
    ends = np.zeros(len(block), bool)
    ends[paths.ends[lengths > 0] - 1] = True
    odd = (begins & _one_of(b"/.~")[block]) | (ends & (block == ord("/"))) | _one_of(b"\\:")[block]
    plain = lengths > 0
    plain[np.searchsorted(paths.ends, np.flatnonzero(odd), side="right")] = False
    return plain


def _one_of(characters: bytes) -> Bool[ndarray, "256"]:
    """By byte, whether it is one of the given."""
    found = np.zeros(256, bool)
    found[list(characters)] = True
    return found


def row_weights(manifest: Manifest) -> Float64[ndarray, "n"] | None:
    """The column `weight` of a manifest; None where all rows have the same.

    Raises:
        ManifestError: if a weight is negative, or none is above 0.
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
        identities: of the rows, from `row_identities`.
        seed: of the run.
        epoch: counted from 0.

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
        weights: of the rows, from 0; they need not sum to 1.
        seed: of the run.
        epoch: counted from 0.

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


def mixed(x: UInt64[ndarray, "n"]) -> UInt64[ndarray, "n"]:
    """The finaliser of SplitMix64 (Steele et al. 2014): a bijection that mixes every bit into every other."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True, kw_only=True)
class ClipOrder:
    """The clips of one data set that one rank reads, epoch after epoch.

    All ranks share an epoch's order, every `world_size`-th clip each: the clips of a batch of all ranks
    together do not depend on how many ranks there are.

    Args:
        identities: of the rows, from `row_identities`.
        weights: of the rows, for draws with replacement; None takes each row once an epoch.
        seed: of the order.
        rank: which rank this is.
        world_size: how many ranks there are.
        part: which data set of a mixture this is.
        arranged: gives the rows of an epoch in an order of its own, and names by its `str` what that depends on.
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
