"""Means of figures over the clips of all ranks, whichever rank has how many."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vjepa.data.loading.ranks import gathered
from vjepa.types import ClipBatch


class RankMeans:
    """Sums of figures, weighted by the clips of each batch, and these numbers of clips."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._clips: dict[str, int] = {}

    def add(self, figures: Mapping[str, Tensor], num_clips: int) -> None:
        """Add the means over a batch of `num_clips` clips."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float() * num_clips
            self._clips[name] = self._clips.get(name, 0) + num_clips

    def reduced(self) -> dict[str, float]:
        """Return the means over the clips of all ranks; all ranks must call this together.

        A rank without a clip knows no name of a figure, hence the gathering of names and numbers together.
        """
        mine = {name: (float(total), self._clips[name]) for name, total in self._sums.items()}
        ranks = gathered(mine)
        names = dict.fromkeys(name for rank in ranks for name in rank)
        found = {name: [rank[name] for rank in ranks if name in rank] for name in names}
        return {
            name: sum(total for total, _ in parts) / sum(clips for _, clips in parts)
            for name, parts in found.items()
        }


def as_others(batch: ClipBatch) -> ClipBatch | None:
    """Return `batch`, or zeros for an empty one if another rank has clips: for networks that all ranks run together.

    Returns None if no rank has a clip; all ranks must call this together.
    """
    shapes = [shape for shape in gathered(tuple(batch.video.shape)) if shape[0]]
    if len(batch) or not shapes:
        return batch if len(batch) else None
    video = batch.video.new_zeros(1, *shapes[0][1:])
    label = batch.label.new_zeros(1)
    return ClipBatch(video=video, label=label, index=label)
