"""The order of an epoch: a pure function of seed, epoch and the identity of each row."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64
from numpy import ndarray
from torch.utils.data import Sampler

from vjepa.data.manifest import Manifest
from vjepa.data.manifest_rows import Rows, Texts
from vjepa.data.remote import is_url, member_of

log = logging.getLogger(__name__)


class SampleKey(NamedTuple):
    """Names one sample: all its random choices follow from it and the seed."""

    epoch: int
    index: int  # type: ignore[assignment]  # also the name of a method of tuples


def row_identities(manifest: Manifest) -> UInt64[ndarray, "n"]:
    """64 bits that name each row: its path from the manifest's folder on, its start, which copy it is."""
    rows = manifest.rows if isinstance(manifest.rows, Rows) else Rows.of(manifest.rows)
    names = _names(rows, manifest.base)
    if np.isnan(rows.start).all():
        keys = [name + b"\nNone\n" for name in names]
    else:
        starts = ("None" if start != start else str(start) for start in rows.start.tolist())
        keys = [name + f"\n{start}\n".encode() for name, start in zip(names, starts, strict=True)]
    identities = np.frombuffer(b"".join([_digest(key + b"0") for key in keys]), "<u8").astype(np.uint64)
    ordered = np.sort(identities)
    several = np.isin(identities, ordered[1:][ordered[1:] == ordered[:-1]])
    copies: Counter[bytes] = Counter()
    for i in np.flatnonzero(several).tolist():
        identities[i] = int.from_bytes(_digest(keys[i] + b"%d" % copies[keys[i]]), "little")
        copies[keys[i]] += 1
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
    begins = np.concatenate([[True], block[:-1] == ord("/")]) if len(block) else np.zeros(0, bool)
    ends = np.zeros(len(block), bool)
    lengths = np.diff(paths.ends, prepend=0)
    begins[paths.ends[:-1][lengths[1:] > 0]] = True
    ends[paths.ends[lengths > 0] - 1] = True
    odd = (
        (begins & np.isin(block, list(b"/.~"))) | (ends & (block == ord("/"))) | np.isin(block, list(b"\\:"))
    )
    plain = lengths > 0
    plain[np.searchsorted(paths.ends, np.flatnonzero(odd), side="right")] = False
    return plain


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
        order: of an epoch's rows, given the epoch, the batch size and the number of ranks; its `str` names what else
            it depends on. By identity if not given.
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
        # what an order depends on beside seed, epoch and batch: a saved position means nothing in another one
        self.arrangement = "" if order is None else f"{order} on {world_size} devices"
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
