"""A training loader that can be taken up in mid-epoch, at the clip after the last one trained on."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch.utils.data import DataLoader

from vjepa.data.loading.batches import Group, PartBatches, Place
from vjepa.data.loading.mixture import Turns
from vjepa.data.loading.order import SampleKey
from vjepa.data.loading.ranks import gathered
from vjepa.errors import SettingError, VjepaError
from vjepa.types import ClipBatch, ClipFailure

log = logging.getLogger(__name__)


class LostWorkerError(VjepaError, RuntimeError):
    """A process that reads clips is gone.

    Args:
        told: What torch says of it.
    """

    def __init__(self, told: str) -> None:
        super().__init__(
            f"a process that reads clips ended by itself or was killed ({told.splitlines()[0].rstrip('. ')}). If the "
            "machine ran out of memory lower --data.num_workers or --data.batch_size; go on with --ckpt_path last."
        )


class Progress(NamedTuple):
    """How far training is: the epoch, and how many batches of it were trained on."""

    epoch: int
    batch: int


class _Mark(NamedTuple):
    """Where each data set is after a batch: its place, and how many of its rows had failed."""

    number: int
    places: tuple[Place, ...]
    failed: tuple[int, ...]


class ResumableLoader:
    """Full batches, each of one data set; its state is how far training got, not prefetching.

    An epoch of the trainer is as many batches as the data sets have together; the epochs of the data sets follow
    one another without regard to it.

    Args:
        parts: Batches of each data set.
        turns: Which of them each batch comes from.
        make: Makes the loader that does the work, from the keys of the groups it is to read.
        progress: Of the training that this loader feeds.
    """

    def __init__(
        self,
        *,
        parts: Sequence[PartBatches],
        turns: Turns,
        make: Callable[[Iterable[list[SampleKey]]], DataLoader[Any]],
        progress: Callable[[], Progress],
    ) -> None:
        self._parts = parts
        self._turns = turns
        self._make = make
        self._progress = progress
        self._groups: Iterator[Group] | None = None
        self._in_flight: deque[PartBatches] = deque()
        self._number = 0  # of the next batch, in the run
        self._planned = 0
        self._epoch = self._start = self._given = 0
        self._running = False
        self._marks: dict[int, _Mark] = {0: self._mark()}

    def __len__(self) -> int:
        """Batches of a whole epoch of the trainer, wherever this one was taken up."""
        return sum(part.per_epoch for part in self._parts)

    def __iter__(self) -> Iterator[ClipBatch]:
        # A generator begins at the first `next`; Lightning makes the iterator before it knows the epoch. Its
        # `set_epoch` runs an epoch ahead after a resume at an epoch's end with max_steps, hence `progress`.
        epoch = self._progress().epoch
        if epoch != self._epoch:
            self._epoch, self._start = epoch, 0
        self._given, self._running = self._start, True
        self._marks = {self._given: self._mark()}
        while self._given < len(self):
            batch = self._next()
            self._given += 1
            trained = min(self._given - 1, self._progress().batch)
            self._marks = {k: v for k, v in self._marks.items() if k >= trained} | {self._given: self._mark()}
            yield batch
        self._start = 0

    def close(self) -> None:
        """Let the worker processes end."""
        self._groups = None

    def state_dict(self) -> dict[str, Any]:
        """Nothing: Lightning restores a loader in mid-epoch only, so the datamodule keeps `position`.

        Without this method and the next one, Lightning would warn that the loader cannot be taken up.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: see `state_dict`."""

    def position(self) -> dict[str, Any]:
        """Where training is: the first clip of each data set that was not trained on, on each rank.

        All ranks must call this together.
        """
        batch = min(self._given, self._progress().batch) if self._running else self._start
        mark = self._marks[max(batch, min(self._marks))]
        mine = {
            "places": [list(place) for place in mark.places],
            "failed": [
                [
                    [int(part.order.identities[row]), f.path, f.reason]
                    for row, f in list(part.failed.items())[:n]
                ]
                for part, n in zip(self._parts, mark.failed, strict=True)
            ],
        }
        return {
            "epoch": self._epoch,
            "batch": batch,
            "number": mark.number,
            "global_batches": [part.global_batch for part in self._parts],
            "orders": [part.order.arrangement for part in self._parts],
            "rows": self._fingerprints(),
            "ranks": gathered(mine),
        }

    def go_to(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            ValueError: If the data sets are more or fewer, a batch on all devices together has another size, or shards
                were read in another order.
        """
        sizes = [part.global_batch for part in self._parts]
        if len(state["global_batches"]) != len(sizes):
            raise SettingError(
                f"the checkpoint was saved with {len(state['global_batches'])} data sets, now there are {len(sizes)}. "
                "Give --data.parts those it had, in their order."
            )
        if state["global_batches"] != sizes:
            raise SettingError(
                f"the checkpoint was saved at batch {state['batch']} of an epoch, {_listed(state['global_batches'])} "
                f"clips a batch on all devices together; now they are {_listed(sizes)}. "
                f"Set --data.batch_size to {_listed(state['global_batches'])} divided by the number of devices."
            )
        orders = [part.order.arrangement for part in self._parts]
        if state["orders"] != orders:
            raise SettingError(
                f"the checkpoint was saved in an epoch in the order {'; '.join(state['orders'])}; now it is "
                f"{'; '.join(orders)}. Set stream_bytes, --data.num_workers and the number of devices as they were."
            )
        if state["rows"] != self._fingerprints():
            log.warning(
                "the rows of a manifest or the seed are not those of the checkpoint: its epoch goes on in a new order"
            )
        self._epoch, self._start, self._number = state["epoch"], state["batch"], state["number"]
        self._planned = self._number
        for i, part in enumerate(self._parts):
            _restore(
                part, [rank["places"][i] for rank in state["ranks"]], [r["failed"][i] for r in state["ranks"]]
            )
        self._marks = {self._start: self._mark()}

    def _next(self) -> ClipBatch:
        if self._groups is None:
            self._groups = iter(self._make(self._requests()))
        part = self._parts[self._turns.part(self._number)]
        while (batch := part.take()) is None:
            try:
                group = next(self._groups)  # asks for more, so that something is in flight
            except (RuntimeError, ConnectionError, EOFError) as error:
                if _is_of_a_lost_worker(error):
                    raise LostWorkerError(str(error) or type(error).__name__) from error
                raise
            self._in_flight.popleft().receive(group)
        if len(self._parts) > 1:
            batch = replace(batch, turn=(0, self._number))
        self._number += 1
        return batch

    def _requests(self) -> Iterator[list[SampleKey]]:
        """What is to be read, without end: first what planned batches still need, then the next batch."""
        while True:
            for part in self._parts:
                if keys := part.ask():
                    self._in_flight.append(part)
                    yield keys
                    break
            else:
                self._parts[self._turns.part(self._planned)].plan()
                self._planned += 1

    def _mark(self) -> _Mark:
        places = tuple(part.place for part in self._parts)
        return _Mark(self._number, places, tuple(len(part.failed) for part in self._parts))

    def _fingerprints(self) -> list[str]:
        """Of the rows of each data set, and of the seed of their order."""
        return [
            hashlib.blake2b(
                part.order.identities.tobytes() + str(part.order.seed).encode(), digest_size=8
            ).hexdigest()
            for part in self._parts
        ]


def _is_of_a_lost_worker(error: Exception) -> bool:
    """Whether a worker is gone: torch says so, or the pipe through which its batch came broke first."""
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    return "in DataLoader worker process" not in str(error)  # that is one the worker lived to tell


def _restore(part: PartBatches, places: list[list[int]], failed: list[list[Any]]) -> None:
    """Bring one data set to its place; on another number of ranks, to the sum of what they had read."""
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
