"""The order of an epoch: a pure function of seed, epoch and the identity of each row."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64
from numpy import ndarray
from torch.utils.data import Sampler

from vjepa.data.manifest import Manifest
from vjepa.data.manifest_rows import Rows, Texts
from vjepa.data.remote import is_url

log = logging.getLogger(__name__)


class SampleKey(NamedTuple):
    """Names one sample: all its random choices follow from it and the seed."""

    epoch: int
    index: int  # type: ignore[assignment]  # also the name of a method of tuples


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
        path = rows.path_of(i)
        if not is_url(path):
            below = base and PurePath(path).is_relative_to(base)
            path = (PurePath(path).relative_to(base) if below else PurePath(path)).as_posix()
        names[i] = path.encode("utf-8", "surrogateescape")
    return names


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
    return np.argsort(_splitmix64(identities ^ salt), kind="stable").astype(np.int64)


def _splitmix64(x: UInt64[ndarray, "n"]) -> UInt64[ndarray, "n"]:
    """The finaliser of SplitMix64 (Steele et al. 2014): a bijection that mixes every bit into every other."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class EpochBatches(Sampler[list[SampleKey]]):
    """Batches of sample keys of one rank: whole batches, shuffled, a new order each epoch, from any position.

    Args:
        identities: of the rows, from `row_identities`.
        batch_size: clips in a batch of one rank; fewer if there are fewer clips.
        seed: of the order.
        rank: which rank this is.
        world_size: how many ranks there are; they share each epoch's order, every world_size-th clip each.
    """

    def __init__(
        self,
        *,
        identities: UInt64[ndarray, "n"],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(identities) < world_size:
            raise ValueError(
                f"{len(identities)} clips on {world_size} devices: each needs one at least. Use fewer devices."
            )
        fits = len(identities) // world_size
        if fits < batch_size:
            log.warning(
                "%d clips do not fill a batch of %d: batches of %d", len(identities), batch_size, fits
            )
        self.global_batch = min(batch_size, fits) * world_size
        self._identities = identities
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of `epoch`; stay, if in that epoch already."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever this one was taken up."""
        return len(self._identities) // self.global_batch

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, start = self.epoch, self.start
        order = epoch_order(self._identities, self._seed, epoch)
        for batch in range(start, len(self)):
            rows = order[batch * self.global_batch : (batch + 1) * self.global_batch]
            yield [SampleKey(epoch, int(i)) for i in rows[self._rank :: self._world_size]]
