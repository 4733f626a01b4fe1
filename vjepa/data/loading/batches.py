"""Full batches from clips of which some cannot be read: the next clips of the epoch take their place."""

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
    """Clips read together by one worker: the readable ones, and which of those asked for they are."""

    batch: ClipBatch
    slots: tuple[int, ...]


def collate_group(samples: Sequence[Sample]) -> Group:
    """A group of the samples that a worker was asked for."""
    return Group(collate(samples), tuple(i for i, s in enumerate(samples) if s.failure is None))


class Place(NamedTuple):
    """Where a data set is: its epoch, the place in the rank's share of it, the batches of it that were given."""

    epoch: int = 0
    at: int = 0
    batches: int = 0


class _Asked(NamedTuple):
    """Keys that a worker was asked for, and their places in the share."""

    keys: list[SampleKey]
    places: list[int]


class _Piece(NamedTuple):
    """Readable clips in the share's order, and their places in it."""

    batch: ClipBatch
    places: list[int]


@dataclass
class Lap:
    """One epoch of one data set on one rank, while it is read.

    Args:
        share: the clips of this rank.
        size: clips in a batch.
        batches: how many batches the epoch has to give, beginning again where clips run out; None ends it
            with its clips.
        begun: where to begin.
        clips_per_row: clips that each row comes with; all else counts rows.
    """

    share: Share
    size: int
    batches: int | None
    begun: Place
    clips_per_row: int = 1

    def __post_init__(self) -> None:
        self.at = self.done = self.begun.at
        self.planned = self.given = self.begun.batches
        self._good = self.given * self.size  # readable clips so far
        self._asked: deque[_Asked] = deque()
        self._groups: deque[Group] = deque()
        self._pieces: list[_Piece] = []
        self.failures: list[ClipFailure] = []  # to be told with the next batch

    @property
    def _coming(self) -> int:
        return sum(len(asked.keys) for asked in self._asked)

    def has_room(self) -> bool:
        """Whether one more batch may come of it, if all that is not read yet is readable."""
        if self.batches is not None:
            return self.planned < self.batches
        most = self._good + self._coming + len(self.share.rows) - self.at
        return most >= (self.planned + 1) * self.size or (self.planned == 0 < most)

    def ask(self, failed: dict[int, ClipFailure]) -> list[SampleKey]:
        """Keys that the planned batches still need; rows in `failed` are not tried again."""
        asked = _Asked([], [])
        short = self.planned * self.size - self._good - self._coming
        skipped = 0
        while len(asked.keys) < short and skipped < len(self.share.rows):
            if self.batches is None and self.at == len(self.share.rows):
                break
            key = self.share.key(self.at)
            if key.index in failed:
                skipped += 1
            else:
                skipped = 0
                asked.keys.append(key)
                asked.places.append(self.at)
            self.at += 1
        if asked.keys:
            self._asked.append(asked)
        return asked.keys

    def receive(self, group: Group) -> None:
        """Take what was asked for, in the order of asking."""
        self._groups.append(group)

    def sort(self, failed: dict[int, ClipFailure], ledger: FailureLedger) -> None:
        """Put readable clips in line, and add rows that failed to `failed` and to the ledger."""
        while self._groups:
            group, asked = self._groups.popleft(), self._asked.popleft()
            bad = sorted(set(range(len(asked.keys))) - set(group.slots))
            # a row that failed once is out, even if another clip of it could be read meanwhile: what a run sees
            # must not depend on how far ahead its workers read
            kept = [i for i, slot in enumerate(group.slots) if asked.keys[slot].index not in failed]
            for slot, failure in zip(bad, group.batch.failures, strict=True):
                failed.setdefault(asked.keys[slot].index, failure)
            self.failures += group.batch.failures
            ledger.observe(len(group.slots), group.batch.failures)
            clips = (
                group.batch if len(kept) == len(group.slots) else _rows(group.batch, kept, self.clips_per_row)
            )
            self._good += len(kept)
            if kept:
                self._pieces.append(_Piece(clips, [asked.places[group.slots[i]] for i in kept]))

    def take(self) -> ClipBatch | None:
        """The next batch, if its clips are there; one that is not full only of an epoch too short for one."""
        ready = sum(len(piece.places) for piece in self._pieces)
        size = self.size
        if ready < size:
            if not (self.exhausted() and self.given == 0 and ready):
                return None
            size = ready
        taken: list[ClipBatch] = []
        while size:
            piece = self._pieces.pop(0)
            if len(piece.places) > size:
                each = self.clips_per_row * size
                self._pieces.insert(0, _Piece(_part(piece.batch, slice(each, None)), piece.places[size:]))
                piece = _Piece(_part(piece.batch, slice(each)), piece.places[:size])
            taken.append(piece.batch)
            size -= len(piece.places)
            self.done = piece.places[-1] + 1
        batch = taken[0] if len(taken) == 1 else _joined(taken)
        turn = (self.share.epoch, self.given)
        batch = replace(batch, failures=tuple(self.failures), part=self.share.part, turn=turn)
        self.failures.clear()
        self.given += 1
        return batch

    def exhausted(self) -> bool:
        """Whether all of its clips were read."""
        return self.batches is None and self.at == len(self.share.rows) and not self._asked

    @property
    def place(self) -> Place:
        """The first clip that is not in a batch yet."""
        return Place(self.share.epoch, self.done, self.given)


@dataclass(kw_only=True)
class PartBatches:
    """The batches of one data set on one rank, epoch after epoch without end, each full.

    Alone, an epoch ends with its last whole batch of readable clips: the batches are those of a manifest
    without the unreadable rows. On several ranks all have the same number of batches an epoch, and a rank that
    runs out begins its share again.

    Args:
        order: of the clips.
        batch_size: rows in a batch of one rank; fewer if there are fewer rows.
        ledger: is told of unreadable clips.
        clips_per_row: clips that each row comes with.
    """

    order: ClipOrder
    batch_size: int
    ledger: FailureLedger
    clips_per_row: int = 1
    failed: dict[int, ClipFailure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_clips, world_size = len(self.order), self.order.world_size
        if num_clips < world_size:
            raise SettingError(
                f"{num_clips} clips on {world_size} devices: each needs one at least. Use fewer devices."
            )
        fits = num_clips // world_size
        if fits < self.batch_size:
            log.warning("%d clips do not fill a batch of %d: batches of %d", num_clips, self.batch_size, fits)
        self.batch_size = min(self.batch_size, fits)
        self.global_batch = self.batch_size * world_size
        self.per_epoch = num_clips // self.global_batch
        self.go_to(Place())

    def go_to(self, place: Place) -> None:
        """Begin at `place`."""
        self._laps = deque([self._lap(place)])
        self._asked: deque[Lap] = deque()

    @property
    def place(self) -> Place:
        """The first clip that is not in a batch yet."""
        return self._laps[0].place

    def plan(self) -> None:
        """One more batch is wanted."""
        if not self._laps[-1].has_room():
            self._laps.append(self._lap(Place(self._laps[-1].share.epoch + 1)))
        self._laps[-1].planned += 1

    def ask(self) -> list[SampleKey]:
        """Keys to read next; none if all planned batches will be full."""
        for lap in self._laps:
            if keys := lap.ask(self.failed):
                self._asked.append(lap)
                return keys
        return []

    def receive(self, group: Group) -> None:
        """Take what was asked for, in the order of asking."""
        self._asked.popleft().receive(group)

    def take(self) -> ClipBatch | None:
        """The next batch, if its clips are there."""
        while True:
            lap = self._laps[0]
            lap.sort(self.failed, self.ledger)
            batch = lap.take()
            if batch is not None:
                return batch
            if not (lap.exhausted() or (lap.given == lap.planned and len(self._laps) > 1)):
                if len(self.failed) >= len(lap.share.rows) and self.failed.keys() >= {
                    *lap.share.rows.tolist()
                }:
                    self.ledger.nothing_left()
                return None
            if lap.given == 0:
                self.ledger.nothing_left()
            lost = lap.planned - lap.given  # planned before it was known what cannot be read
            if len(self._laps) == 1:
                self._laps.append(self._lap(Place(lap.share.epoch + 1)))
            self._laps.popleft()
            self._laps[0].failures += lap.failures
            for _ in range(lost):
                self.plan()

    def _lap(self, place: Place) -> Lap:
        batches = self.per_epoch if self.order.world_size > 1 else None
        return Lap(self.order.share(place.epoch), self.batch_size, batches, place, self.clips_per_row)


def _part(batch: ClipBatch, part: slice) -> ClipBatch:
    return batch.map(lambda tensor: tensor[part])


def _rows(batch: ClipBatch, rows: list[int], clips_per_row: int) -> ClipBatch:
    """Return all clips of some rows."""
    first = torch.tensor(rows, dtype=torch.int64)[:, None] * clips_per_row
    ids = (first + torch.arange(clips_per_row)).flatten()
    return batch.map(lambda tensor: tensor[ids])


def _joined(batches: Sequence[ClipBatch]) -> ClipBatch:
    return batches[0].map(lambda *tensors: torch.cat(tensors), *batches[1:])
