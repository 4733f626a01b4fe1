"""Several data sets in one run, each with its own clips and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from vjepa.data.loading.dataset import Sample, VideoClips
from vjepa.data.loading.order import SampleKey
from vjepa.data.sampling import ClipSampler
from vjepa.data.transforms.video import RandomTransform, TrainTransform
from vjepa.errors import SettingError

GOLDEN_STEP = 0x9E3779B97F4A7C15  # 2**64 / the golden ratio: its multiples fill the circle most evenly
CIRCLE = 2**64


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """One data set of a mixture; a setting that is null has the value of the whole run.

    Args:
        source: Manifest, folder of class folders, folder of videos, or one video.
        weight: Share of the batches, relative to the other parts.
        root: Folder that relative paths in the manifest start from.
        sampler: Chooses the frames of a clip; num_frames 1 makes images of videos.
        transform: Crop, flip and normalisation.
        batch_size: Clips in a batch of one device.
        decoder: The backend that opens these files.
        stream_bytes: Read shards as streams, for storage where one request per clip is slow. It is the memory of
            each worker to shuffle neighbouring clips of a shard in, such as 256000000. 0 reads each clip by itself.
    """

    source: str
    weight: float = 1.0
    root: str | None = None
    sampler: ClipSampler | None = None
    transform: TrainTransform | RandomTransform | None = None
    batch_size: int | None = None
    decoder: str | None = None
    stream_bytes: int = 0

    def __post_init__(self) -> None:
        if self.stream_bytes < 0:
            raise SettingError(
                f"{self.source}: stream_bytes {self.stream_bytes}. Give 0, or the size of some hundred clips."
            )
        if not self.weight > 0 or (self.batch_size is not None and self.batch_size < 1):
            raise SettingError(
                f"{self.source}: weight {self.weight:g}, batch_size {self.batch_size}: the first must be above 0, the "
                "second at least 1. Omit a part that must not be read."
            )


class MixtureClips(Dataset[Sample]):
    """The clips of several data sets, by `SampleKey`."""

    def __init__(self, parts: Sequence[VideoClips]) -> None:
        self.parts = tuple(parts)

    def __getitem__(self, key: SampleKey) -> Sample:
        return self.parts[key.part][key]


class MixtureSchedule:
    """The data set that each batch of a run comes from: a function of seed and batch number, equal on all ranks.

    Batch numbers go round a circle in golden steps, from a place that the seed determines. Each part has its
    share, up to a few batches, of any n consecutive batches. Each part has the same share of every k-th batch: with
    gradient accumulation over k batches, no position in the step gets one part alone.

    >>> schedule = MixtureSchedule([3.0, 1.0], seed=0)
    >>> [schedule.part(i) for i in range(8)]
    [0, 1, 0, 0, 0, 1, 0, 0]
    """

    def __init__(self, weights: Sequence[float], *, seed: int) -> None:
        self._ends = np.cumsum(weights) / np.sum(weights)
        self._begin = int(np.random.SeedSequence([seed, len(weights)]).generate_state(1, np.uint64)[0])

    def part(self, number: int) -> int:
        """Return the part that batch `number` of the run comes from."""
        at = (self._begin + number * GOLDEN_STEP) % CIRCLE / CIRCLE
        return min(int(np.searchsorted(self._ends, at, side="right")), len(self._ends) - 1)
