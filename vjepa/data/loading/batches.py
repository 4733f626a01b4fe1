"""Full batches although some clips cannot be read: the next clips of the epoch replace them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from vjepa.data.loading.dataset import Sample, collate
from vjepa.data.loading.failures import FailureLedger
from vjepa.data.loading.order import ClipOrder, SampleKey, Share
from vjepa.errors import SettingError
from vjepa.types import ClipBatch, ClipFailure

log = logging.getLogger(__name__)


class Group(NamedTuple):
    """Clips read together by one worker: the readable ones, and their positions among the requested ones."""

    batch: ClipBatch
    slots: tuple[int, ...]


def collate_group(samples: Sequence[Sample]) -> Group:
    """Make a group of the samples that a worker read."""
    return Group(collate(samples), tuple(i for i, s in enumerate(samples) if s.failure is None))


class Place(NamedTuple):
    """A position in a data set: the epoch, the index in the rank's share of it, and the batches already returned."""

    epoch: int = 0
    at: int = 0
    batches: int = 0


class _Request(NamedTuple):
    """Keys that a worker must read, and their positions in the share."""

    keys: list[SampleKey]
    positions: list[int]


class _Piece(NamedTuple):
    """Readable clips in the share's order, and their positions in it."""

    batch: ClipBatch
    positions: list[int]


@dataclass
class EpochReader:
    """The state of one epoch of one data set on one rank while it is read.

    Batches have `size` rows. With `batches` given, the epoch has that many and repeats its rows if it runs
    out; with None it ends with its rows. `begun` is where to begin. `size`, `at` and `done` count
    rows, of `clips_per_row` clips.
    """

    share: Share
    size: int
    batches: int | None
    begun: Place
    clips_per_row: int = 1

    def __post_init__(self) -> None:
        self.at = self.done = self.begun.at
        self.planned = self.given = self.begun.batches
        self._good = self.given * self.size  # readable rows so far
        self._requests: deque[_Request] = deque()
        self._groups: deque[Group] = deque()
        self._pieces: list[_Piece] = []
        self.failures: list[ClipFailure] = []  # to report with the next batch

    @property
    def _requested(self) -> int:
        return sum(len(request.keys) for request in self._requests)

    def has_room(self) -> bool:
        """Return whether there can be one more batch, if all that is not read yet is readable."""
        if self.batches is not None:
            return self.planned < self.batches
        most = self._good + self._requested + len(self.share.rows) - self.at
        return most >= (self.planned + 1) * self.size or (self.planned == 0 < most)

    def request(self, failed: dict[int, ClipFailure]) -> list[SampleKey]:
        """Return keys that the planned batches still need; rows in `failed` are not tried again."""
        request = _Request([], [])
        short = self.planned * self.size - self._good - self._requested
        skipped = 0
        while len(request.keys) < short and skipped < len(self.share.rows):
            if self.batches is None and self.at == len(self.share.rows):
                break
            key = self.share.key(self.at)
            if key.index in failed:
                skipped += 1
            else:
                skipped = 0
                request.keys.append(key)
                request.positions.append(self.at)
            self.at += 1
        if request.keys:
            self._requests.append(request)
        return request.keys

    def receive(self, group: Group) -> None:
        """Accept the group of the oldest open request."""
        self._groups.append(group)

    def sort(self, failed: dict[int, ClipFailure], ledger: FailureLedger) -> None:
        """Queue readable clips, and add rows that failed to `failed` and to the ledger."""
        while self._groups:
            group, request = self._groups.popleft(), self._requests.popleft()
            bad = sorted(set(range(len(request.keys))) - set(group.slots))
            # a row that failed once is excluded, even if another of its clips was readable meanwhile: the clips of
            # a run must not depend on how far ahead its workers read
            kept = [i for i, slot in enumerate(group.slots) if request.keys[slot].index not in failed]
            for slot, failure in zip(bad, group.batch.failures, strict=True):
                failed.setdefault(request.keys[slot].index, failure)
            self.failures += group.batch.failures
            ledger.observe(len(group.slots), group.batch.failures, num_padded=group.batch.num_padded)
            clips = (
                group.batch if len(kept) == len(group.slots) else _rows(group.batch, kept, self.clips_per_row)
            )
            self._good += len(kept)
            if kept:
                self._pieces.append(_Piece(clips, [request.positions[group.slots[i]] for i in kept]))

    def take(self) -> ClipBatch | None:
        """Return the next batch, if its clips have been read; only in a short epoch it has fewer than `size` rows."""
        ready = sum(len(piece.positions) for piece in self._pieces)
        size = self.size
        if ready < size:
            if not (self.exhausted() and self.given == 0 and ready):
                return None
            size = ready
        taken: list[ClipBatch] = []
        while size:
            piece = self._pieces.pop(0)
            if len(piece.positions) > size:
                each = self.clips_per_row * size
                self._pieces.insert(0, _Piece(_part(piece.batch, slice(each, None)), piece.positions[size:]))
                piece = _Piece(_part(piece.batch, slice(each)), piece.positions[:size])
            taken.append(piece.batch)
            size -= len(piece.positions)
            self.done = piece.positions[-1] + 1
        batch = taken[0] if len(taken) == 1 else _concatenated(taken)
        turn = (self.share.epoch, self.given)
        batch = replace(batch, failures=tuple(self.failures), part=self.share.part, turn=turn, num_padded=0)
        self.failures.clear()
        self.given += 1
        return batch

    def exhausted(self) -> bool:
        """Return whether all of its clips were read."""
        return self.batches is None and self.at == len(self.share.rows) and not self._requests

    @property
    def place(self) -> Place:
        """The first clip that is not in a batch yet."""
        return Place(self.share.epoch, self.done, self.given)


def rows_per_rank(num_rows: int, world_size: int) -> int:
    """Return the largest batch of one rank.

    >>> rows_per_rank(12, 5)
    2

    Raises:
        SettingError: If there are fewer rows than ranks.
    """
    if num_rows < world_size:
        raise SettingError(
            f"{num_rows} clips on {world_size} devices: each needs at least one. Use fewer devices."
        )
    return num_rows // world_size


@dataclass(kw_only=True)
class PartBatches:
    """The endless sequence of full batches of one data set on one rank, epoch after epoch.

    With one rank, an epoch ends with its last full batch of readable clips: the batches are those of a manifest
    without the unreadable rows. With several ranks, all have the same number of batches per epoch, and a rank
    without further clips begins its share again.

    `batch_size` is the rows in a batch of one rank; it becomes smaller if there are fewer rows.
    """

    order: ClipOrder
    batch_size: int
    ledger: FailureLedger
    clips_per_row: int = 1
    failed: dict[int, ClipFailure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_clips, world_size = len(self.order), self.order.world_size
        fits = rows_per_rank(num_clips, world_size)
        if fits < self.batch_size:
            log.warning("%d clips do not fill a batch of %d: batches of %d", num_clips, self.batch_size, fits)
        self.batch_size = min(self.batch_size, fits)
        self.global_batch = self.batch_size * world_size
        self.per_epoch = num_clips // self.global_batch
        self.go_to(Place())

    def go_to(self, place: Place) -> None:
        """Begin at `place`."""
        self._readers = deque([self._reader(place)])
        self._requests: deque[EpochReader] = deque()

    @property
    def place(self) -> Place:
        """The first clip that is not in a batch yet."""
        return self._readers[0].place

    def plan(self) -> None:
        """Plan one more batch."""
        if not self._readers[-1].has_room():
            self._readers.append(self._reader(Place(self._readers[-1].share.epoch + 1)))
        self._readers[-1].planned += 1

    def request(self) -> list[SampleKey]:
        """Return keys to read next; an empty list if all planned batches will be full."""
        for reader in self._readers:
            if keys := reader.request(self.failed):
                self._requests.append(reader)
                return keys
        return []

    def receive(self, group: Group) -> None:
        """Accept the group of the oldest open request."""
        self._requests.popleft().receive(group)

    def take(self) -> ClipBatch | None:
        """Return the next batch, if its clips have been read."""
        while True:
            reader = self._readers[0]
            reader.sort(self.failed, self.ledger)
            batch = reader.take()
            if batch is not None:
                return batch
            if not (reader.exhausted() or (reader.given == reader.planned and len(self._readers) > 1)):
                rows = reader.share.rows
                if len(self.failed) >= len(rows) and self.failed.keys() >= {*rows.tolist()}:
                    self.ledger.nothing_left()
                return None
            if reader.given == 0:
                self.ledger.nothing_left()
            lost = reader.planned - reader.given  # planned before the failures were known
            if len(self._readers) == 1:
                self._readers.append(self._reader(Place(reader.share.epoch + 1)))
            self._readers.popleft()
            self._readers[0].failures += reader.failures
            for _ in range(lost):
                self.plan()

    def _reader(self, place: Place) -> EpochReader:
        batches = self.per_epoch if self.order.world_size > 1 else None
        return EpochReader(self.order.share(place.epoch), self.batch_size, batches, place, self.clips_per_row)


def _part(batch: ClipBatch, part: slice) -> ClipBatch:
    return batch.map(lambda tensor: tensor[part])


def _rows(batch: ClipBatch, rows: list[int], clips_per_row: int) -> ClipBatch:
    """Return all clips of some rows."""
    first = torch.tensor(rows, dtype=torch.int64)[:, None] * clips_per_row
    ids = (first + torch.arange(clips_per_row)).flatten()
    return batch.map(lambda tensor: tensor[ids])


def _concatenated(batches: Sequence[ClipBatch]) -> ClipBatch:
    return batches[0].map(lambda *tensors: torch.cat(tensors), *batches[1:])
