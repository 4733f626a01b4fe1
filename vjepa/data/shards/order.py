"""Streaming of shards: an order of an epoch in which shards are read through, and fetches of many clips at once."""

from __future__ import annotations

import bisect
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from vjepa.data.manifests.identity import hash_64, mixed, row_identities
from vjepa.data.manifests.rows import Manifest, ManifestError
from vjepa.data.remote import fetch, member_of

NUM_BLOCKS = 16  # requests that fill a buffer
# clips are shuffled within this share of the buffer: after a broken clip a batch comes from the runs of two workers,
# so two windows and the blocks at their ends must fit
WINDOW = 3 / 8
STREAM = 1  # separates its random numbers from those of other orders with the same seed and epoch


class ShardPlaces:
    """The place of each row of a manifest: `shard` (n,) its number, `offset` and `size` (n,) in bytes.

    `extent` (n,) is the distance in bytes to the next row of the shard.

    Raises:
        ManifestError: If a row is not in a shard.
    """

    def __init__(self, manifest: Manifest) -> None:
        members = [member_of(row.path) for row in manifest.rows]
        found = [member for member in members if member is not None]
        if len(found) < len(members):
            raise ManifestError(
                manifest.source,
                0,
                f"{len(members) - len(found)} clips are not in a shard, so they cannot be streamed. Give the source "
                "itself as --data.train, or make shards of it with `vjepa data shard`",
            )
        numbers: dict[str, int] = {}
        self.shard = np.array([numbers.setdefault(m.shard, len(numbers)) for m in found], np.int64)
        self.offset = np.array([member.offset for member in found], np.int64)
        self.size = np.array([member.size for member in found], np.int64)
        self.extent = _extents(self.shard, self.offset, self.size)
        self.names = list(numbers)
        # from the file name alone: a copy in another place has the same order
        self.keys = np.array(
            [hash_64(os.fsencode(name.rpartition("/")[2])) for name in self.names], np.uint64
        )
        self.identities = row_identities(manifest)


def _extents(
    shard: Int64[ndarray, "n"], offset: Int64[ndarray, "n"], size: Int64[ndarray, "n"]
) -> Int64[ndarray, "n"]:
    row = np.lexsort((offset, shard))
    to_next = np.diff(offset[row], append=0)
    last = np.diff(shard[row], append=-1) != 0
    extent = np.empty_like(size)
    extent[row] = np.where(last, size[row], to_next)
    return extent


@dataclass(kw_only=True, eq=False)
class ShardOrder:
    """An order of the rows in an epoch in which each worker of each rank reads shards from start to end.

    The shards are shuffled and their clips joined to a ring. Each worker of each rank gets an equal run of the ring
    and shuffles it within its `buffer_bytes`. The order depends on seed, epoch, ranks, workers, batch and buffer alone.

    `batch_size` and `num_workers` are those of one rank; a batch is smaller if there are fewer clips, 0 workers are 1.
    """

    places: ShardPlaces = field(kw_only=False)
    seed: int
    batch_size: int
    num_workers: int
    world_size: int
    buffer_bytes: int

    def __post_init__(self) -> None:
        self.batch_size = max(min(self.batch_size, len(self.places.shard) // self.world_size), 1)
        self.num_workers = max(self.num_workers, 1)

    def __str__(self) -> str:
        workers = f"{self.num_workers} workers on each of {self.world_size} devices"
        return f"of shards, {workers}, {self.buffer_bytes} bytes"

    def __call__(self, epoch: int) -> Int64[ndarray, "n"]:
        """Return row indices: a batch is `batch_size` times one row per rank; the rest that fills no batch is last.

        `DataLoader` gives batch b to worker b % workers, so the batch comes from that worker's run.
        """
        places, batch_size = self.places, self.batch_size
        # not the salt of `epoch_order`: `vjepa data shard` has shuffled the clips with that one
        salt, turn = np.random.SeedSequence([self.seed, epoch, STREAM]).generate_state(2, np.uint64)
        rank_of_shard = np.argsort(np.argsort(mixed(places.keys ^ salt), kind="stable"))
        row = np.lexsort((places.offset, rank_of_shard[places.shard]))
        # without a turn of the ring, the start of a shard would come early in each epoch
        row = np.roll(row, int(turn % np.uint64(len(row))))
        chance = mixed(places.identities ^ salt)
        num_batches = len(row) // (batch_size * self.world_size)
        order = np.empty((num_batches, batch_size, self.world_size), np.int64)
        begin = 0
        for rank in range(self.world_size):
            for lane in range(self.num_workers):
                batches = range(lane, num_batches, self.num_workers)
                run = row[begin : begin + len(batches) * batch_size]
                begin += len(run)
                window = np.cumsum(places.extent[run]) // max(int(self.buffer_bytes * WINDOW), 1)
                run = run[np.lexsort((chance[run], window))]
                order[lane :: self.num_workers, :, rank] = run.reshape(len(batches), batch_size)
        return np.concatenate([order.reshape(-1), row[begin:]])


class BlockReader:
    """A reader of members of shards that fetches blocks of consecutive members and keeps the last ones in memory.

    The blocks take `buffer_bytes`; each takes a sixteenth of it, or one member if that is larger. Threads that share
    one reader wait for each other.
    """

    def __init__(self, places: ShardPlaces, *, buffer_bytes: int) -> None:
        self._limit = buffer_bytes
        self._bounds = {
            name: _blocks(places, number, buffer_bytes // NUM_BLOCKS)
            for number, name in enumerate(places.names)
        }
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, path: str) -> bytes:
        """Return all bytes of one member; raise `DecodeError` if its block cannot be fetched."""
        member = member_of(path)
        assert member is not None  # `ShardPlaces` has checked it
        starts, ends = self._bounds[member.shard]
        block = bisect.bisect_right(starts, member.offset) - 1
        with self._lock:
            content = self._block(member.shard, starts[block], ends[block])
        begin = member.offset - starts[block]
        return content[begin : begin + member.size]

    def _block(self, shard: str, start: int, end: int) -> bytes:
        key = (shard, start)
        if key not in self._kept:
            num_bytes = sum(map(len, self._kept.values()))
            while self._kept and num_bytes + end - start > self._limit:
                num_bytes -= len(self._kept.popitem(last=False)[1])
            self._kept[key] = fetch(shard, start, end)
        self._kept.move_to_end(key)
        return self._kept[key]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}  # another process has its own


def _blocks(places: ShardPlaces, shard: int, block_bytes: int) -> tuple[list[int], list[int]]:
    """Return where the blocks of a shard start and end: each holds as many whole members as fit, at least one."""
    rows = np.flatnonzero(places.shard == shard)
    rows = rows[np.argsort(places.offset[rows], kind="stable")]
    starts: list[int] = []
    ends: list[int] = []
    for offset, size in zip(places.offset[rows].tolist(), places.size[rows].tolist(), strict=True):
        if starts and offset + size - starts[-1] <= block_bytes:
            ends[-1] = max(ends[-1], offset + size)
        elif not starts or offset >= ends[-1]:
            starts.append(offset)
            ends.append(offset + size)
    return starts, ends
