"""The order of an epoch: a pure function of seed, epoch and the identity of each row."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64
from numpy import ndarray
from torch.utils.data import Sampler

from vjepa.data.manifest import Manifest
from vjepa.data.remote import member_of

log = logging.getLogger(__name__)


class SampleKey(NamedTuple):
    """Names one sample: all its random choices follow from it and the seed."""

    epoch: int
    index: int  # type: ignore[assignment]  # also the name of a method of tuples


def row_identities(manifest: Manifest) -> UInt64[ndarray, "n"]:
    """64 bits that name each row: its path from the manifest's folder on, its start, which copy it is."""
    seen: Counter[tuple[str, float | None]] = Counter()
    identities = np.empty(len(manifest), np.uint64)
    for i, row in enumerate(manifest.rows):
        name = name_in(row.path, manifest.base)
        copy = seen[name, row.start]
        seen[name, row.start] += 1
        digest = hashlib.blake2b(f"{name}\n{row.start}\n{copy}".encode(), digest_size=8).digest()
        identities[i] = int.from_bytes(digest, "little")
    return identities


def name_in(path: str, base: str) -> str:
    """The path from the manifest's folder on; a member of a shard has the name it had before it was put there."""
    if (member := member_of(path)) is not None:
        return member.name
    inside = bool(base) and PurePath(path).is_relative_to(base)
    return (PurePath(path).relative_to(base) if inside else PurePath(path)).as_posix()


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


def mixed(x: UInt64[ndarray, "n"]) -> UInt64[ndarray, "n"]:
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
        order: of an epoch's rows, given the epoch, the batch size and the number of ranks; by identity if not given.
    """

    def __init__(
        self,
        *,
        identities: UInt64[ndarray, "n"],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        order: Callable[..., Int64[ndarray, "n"]] | None = None,
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
        self._order = order
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
        if self._order is None:
            order = epoch_order(self._identities, self._seed, epoch)
        else:
            batch_size = self.global_batch // self._world_size
            order = self._order(epoch, batch_size=batch_size, world_size=self._world_size)
        for batch in range(start, len(self)):
            rows = order[batch * self.global_batch : (batch + 1) * self.global_batch]
            yield [SampleKey(epoch, int(i)) for i in rows[self._rank :: self._world_size]]
