"""A training loader that can be taken up in mid-epoch, at the batch after the last one trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from vjepa.data.order import EpochBatches
from vjepa.types import ClipBatch


class ResumableLoader:
    """Batches of clips in the order of `EpochBatches`; its state is how far training got, not prefetching.

    Lightning finds `sampler.set_epoch` and saves and restores the state with its loops.

    Args:
        batches: the order; also holds the position.
        make: makes the loader that does the work.
        num_trained: how many batches of the running epoch have been trained on.
    """

    def __init__(
        self, *, batches: EpochBatches, make: Callable[[], DataLoader[Any]], num_trained: Callable[[], int]
    ) -> None:
        self.sampler = batches
        self._make = make
        self._num_trained = num_trained
        self._loader: DataLoader[Any] | None = None
        self._running_epoch = -1
        self._given = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever this one was taken up."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[ClipBatch]:
        # a generator begins at the first `next`: Lightning asks for the iterator before it tells the epoch
        if self._loader is None:
            self._loader = self._make()
        self._running_epoch, self._given = self.sampler.epoch, self.sampler.start
        for batch in self._loader:
            self._given += 1
            yield batch
        self.sampler.start = 0

    def close(self) -> None:
        """Let the worker processes end."""
        self._loader = None

    def state_dict(self) -> dict[str, int]:
        """Epoch, and batches of it that were trained on."""
        batch = self.sampler.start
        if self.sampler.epoch == self._running_epoch:
            batch = min(self._given, self._num_trained())
        return {"epoch": self.sampler.epoch, "batch": batch, "global_batch": self.sampler.global_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position.

        Raises:
            ValueError: if the batch on all devices together has another size now.
        """
        if state["global_batch"] != self.sampler.global_batch:
            raise ValueError(
                f"the checkpoint was saved at batch {state['batch']} of an epoch, {state['global_batch']} "
                f"clips a batch on all devices together; now they are {self.sampler.global_batch}. "
                f"Set --data.batch_size to {state['global_batch']} divided by the number of devices."
            )
        self.sampler.epoch, self.sampler.start = state["epoch"], state["batch"]
