"""A training loader that resumes within an epoch, at the clip after the last one trained on."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch.utils.data import DataLoader

from vjepa.data.loading.batches import Group, PartBatches, Place
from vjepa.data.loading.mixture import MixtureSchedule
from vjepa.data.loading.order import SampleKey
from vjepa.data.loading.ranks import gathered
from vjepa.data.loading.workers import next_of
from vjepa.errors import SettingError
from vjepa.files import digest
from vjepa.types import ClipBatch, ClipFailure

log = logging.getLogger(__name__)


class TrainingProgress(NamedTuple):
    """The progress of training: the epoch, and how many of its batches were trained on."""

    epoch: int
    batch: int


class _Mark(NamedTuple):
    """The state after a batch: the place in each data set, and how many of its rows had failed."""

    number: int
    places: tuple[Place, ...]
    failed: tuple[int, ...]


@dataclass(kw_only=True, eq=False)
class ResumableLoader:
    """A loader of full batches, each of one data set; its state is the progress of training, not of prefetching.

    An epoch of the trainer has as many batches as all data sets together, rounded up to whole optimiser steps; the
    epochs of the data sets follow each other independently of it.

    Args:
        parts: Batches of each data set.
        schedule: Tells which data set each batch comes from.
        make: Makes the loader that reads, from the keys of the groups to read.
        progress: Returns the progress of the training that this loader feeds.
        batches_per_step: Batches that an optimiser step accumulates. Lightning ends a step with the epoch.
    """

    parts: Sequence[PartBatches]
    schedule: MixtureSchedule
    make: Callable[[Iterable[list[SampleKey]]], DataLoader[Any]]
    progress: Callable[[], TrainingProgress]
    batches_per_step: int = 1

    def __post_init__(self) -> None:
        self._groups: Iterator[Group] | None = None
        self._in_flight: deque[PartBatches] = deque()
        self._number = 0  # of the next batch, in the run
        self._planned = 0
        self._epoch = self._start = self._given = 0
        self._running = False
        self._marks: dict[int, _Mark] = {0: self._mark()}

    def __len__(self) -> int:
        """Return the batches of a whole epoch of the trainer, wherever this epoch was resumed."""
        steps = -(-sum(part.per_epoch for part in self.parts) // self.batches_per_step)
        return steps * self.batches_per_step

    def __iter__(self) -> Iterator[ClipBatch]:
        # Read the epoch here, at the first `next`: Lightning makes the iterator earlier. Lightning's
        # `set_epoch` is one epoch ahead after a resume at an epoch's end with max_steps, hence `progress`.
        epoch = self.progress().epoch
        if epoch != self._epoch:
            self._epoch, self._start = epoch, 0
        self._given, self._running = self._start, True
        self._marks = {self._given: self._mark()}
        while self._given < len(self):
            batch = self._next()
            self._given += 1
            trained = min(self._given - 1, self.progress().batch)
            self._marks = {k: v for k, v in self._marks.items() if k >= trained} | {self._given: self._mark()}
            yield batch
        self._start = 0

    def close(self) -> None:
        """End the worker processes."""
        self._groups = None

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: Lightning restores a loader only within an epoch, so the datamodule saves `position`.

        Without this method and the next one, Lightning would warn that the loader cannot be resumed.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing, see `state_dict`."""

    def position(self) -> dict[str, Any]:
        """Return the first clip of each data set that was not trained on, on each rank.

        All ranks must call this together.
        """
        batch = min(self._given, self.progress().batch) if self._running else self._start
        mark = self._marks[max(batch, min(self._marks))]
        mine = {
            "places": [list(place) for place in mark.places],
            "failed": [
                [
                    [int(part.order.identities[row]), f.path, f.reason]
                    for row, f in list(part.failed.items())[:n]
                ]
                for part, n in zip(self.parts, mark.failed, strict=True)
            ],
        }
        return {
            "epoch": self._epoch,
            "batch": batch,
            "number": mark.number,
            "global_batches": [part.global_batch for part in self.parts],
            "orders": [part.order.arrangement for part in self.parts],
            "rows": self._fingerprints(),
            "ranks": gathered(mine),
        }

    def go_to(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            ValueError: If the number of data sets, the size of a batch on all devices together, or the order of the
                shards differs.
        """
        saved, sizes = state["global_batches"], [part.global_batch for part in self.parts]
        if len(saved) != len(sizes):
            raise SettingError(
                f"the checkpoint was saved with {len(saved)} data sets, now there are {len(sizes)}. "
                "Give --data.parts the same data sets in the same order."
            )
        if saved != sizes:
            raise SettingError(
                f"the checkpoint was saved at batch {state['batch']} of an epoch, {_listed(saved)} clips per batch on "
                f"all devices together; now they are {_listed(sizes)}. Set --data.batch_size to {_listed(saved)} "
                "divided by the number of devices."
            )
        orders = [part.order.arrangement for part in self.parts]
        if state["orders"] != orders:
            raise SettingError(
                f"the checkpoint was saved in an epoch in the order {'; '.join(state['orders'])}; now it is "
                f"{'; '.join(orders)}. Restore stream_bytes, --data.num_workers and the number of devices."
            )
        if state["rows"] != self._fingerprints():
            log.warning(
                "the rows of a manifest or the seed differ from the checkpoint's: its epoch continues in a new order"
            )
        self._epoch, self._start, self._number = state["epoch"], state["batch"], state["number"]
        self._planned = self._number
        for i, part in enumerate(self.parts):
            ranks = state["ranks"]
            _restore(part, [rank["places"][i] for rank in ranks], [rank["failed"][i] for rank in ranks])
        self._marks = {self._start: self._mark()}

    def _next(self) -> ClipBatch:
        if self._groups is None:
            self._groups = iter(self.make(self._requests()))
        part = self.parts[self.schedule.part(self._number)]
        while (batch := part.take()) is None:
            group = next_of(self._groups)  # the loader draws from `_requests`, which fills `_in_flight`
            self._in_flight.popleft().receive(group)
        if len(self.parts) > 1:
            batch = replace(batch, turn=(0, self._number))
        self._number += 1
        return batch

    def _requests(self) -> Iterator[list[SampleKey]]:
        """Yield keys to read, without end: first what the planned batches still need, then the next batch."""
        while True:
            for part in self.parts:
                if keys := part.request():
                    self._in_flight.append(part)
                    yield keys
                    break
            else:
                self.parts[self.schedule.part(self._planned)].plan()
                self._planned += 1

    def _mark(self) -> _Mark:
        places = tuple(part.place for part in self.parts)
        return _Mark(self._number, places, tuple(len(part.failed) for part in self.parts))

    def _fingerprints(self) -> list[str]:
        """Return a digest of the rows and the seed of each data set's order."""
        orders = [part.order for part in self.parts]
        return [digest(order.identities.tobytes(), str(order.seed).encode(), size=8) for order in orders]


def _restore(part: PartBatches, places: list[list[int]], failed: list[list[Any]]) -> None:
    """Set one data set to its place; with another number of ranks, to the sum of what they had read."""
    rank, world_size = part.order.rank, part.order.world_size
    if len(places) == world_size:
        place, found = Place(*places[rank]), failed[rank]
    else:
        epoch, _, batches = places[0]
        place = Place(epoch, sum(at for _, at, _ in places) // world_size, batches)
        found = [entry for entries in failed for entry in entries]
    rows = part.order.rows_of(identity for identity, _, _ in found)
    failures = [ClipFailure(path=path, reason=reason) for _, path, reason in found]
    part.failed = {row: f for row, f in zip(rows, failures, strict=True) if row is not None}
    part.ledger.restore(part.failed.values())
    part.go_to(place)


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
