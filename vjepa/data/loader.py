"""A training loader that can be taken up in mid-epoch, at the batch after the last one trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch.utils.data import DataLoader

from vjepa.data.order import EpochBatches
from vjepa.types import ClipBatch


class Progress(NamedTuple):
    """How far training is: the epoch, and how many batches of it were trained on."""

    epoch: int
    batch: int


class ResumableLoader:
    """Batches of clips in the order of `EpochBatches`; its state is how far training got, not prefetching.

    Lightning saves and restores the state with its loops.

    Args:
        batches: the order; also holds the position.
        make: makes the loader that does the work.
        progress: of the training that this loader feeds.
    """

    def __init__(
        self,
        *,
        batches: EpochBatches,
        make: Callable[[], DataLoader[Any]],
        progress: Callable[[], Progress],
    ) -> None:
        self._batches = batches
        self._make = make
        self._progress = progress
        self._loader: DataLoader[Any] | None = None
        self._running_epoch = -1
        self._given = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever this one was taken up."""
        return len(self._batches)

    def __iter__(self) -> Iterator[ClipBatch]:
        # A generator begins at the first `next`; Lightning makes the iterator before it knows the epoch. Its
        # `set_epoch` runs an epoch ahead after a resume at an epoch's end with max_steps, hence `progress`.
        self._batches.set_epoch(self._progress().epoch)
        if self._loader is None:
            self._loader = self._make()
        self._running_epoch, self._given = self._batches.epoch, self._batches.start
        for batch in self._loader:
            self._given += 1
            yield batch
        self._batches.start = 0

    def close(self) -> None:
        """Let the worker processes end."""
        self._loader = None

    def state_dict(self) -> dict[str, Any]:
        """Epoch, and batches of it that were trained on."""
        batch = self._batches.start
        if self._batches.epoch == self._running_epoch:
            batch = min(self._given, self._progress().batch)
        return {
            "epoch": self._batches.epoch,
            "batch": batch,
            "global_batch": self._batches.global_batch,
            "arrangement": self._batches.arrangement,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            ValueError: if the batch on all devices together has another size now, or shards another order.
        """
        if state["global_batch"] != self._batches.global_batch:
            raise ValueError(
                f"the checkpoint was saved at batch {state['batch']} of an epoch, {state['global_batch']} "
                f"clips a batch on all devices together; now they are {self._batches.global_batch}. "
                f"Set --data.batch_size to {state['global_batch']} divided by the number of devices."
            )
        if state.get("arrangement", "") != self._batches.arrangement:
            raise ValueError(
                f"the checkpoint was saved at batch {state['batch']} of an epoch in the order "
                f"'{state.get('arrangement') or 'of files'}'; now it is '{self._batches.arrangement or 'of files'}'. "
                "Set --data.train, --data.num_workers and the number of devices as they were."
            )
        self._batches.epoch, self._batches.start = state["epoch"], state["batch"]
