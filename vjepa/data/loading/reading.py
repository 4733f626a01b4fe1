"""What reading may take, and how often it may fail: settings of the whole run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.limited import DEFAULT_SECONDS
from vjepa.data.manifests.rows import ManifestRow
from vjepa.errors import SettingError

# from a row and the times of a clip's frames, (T,) in seconds, to named tensors
ReadExtras = Callable[[ManifestRow, ndarray], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Limits of reading.

    Args:
        timeout_seconds: how long a video may take to open, and a clip to decode, before the decode is ended and the
            file counts as unreadable; 0 for no limit, which is the default where there is none but on Linux.
        cache_bytes: memory for decoded videos, if all of them are of one size and fit; 0 keeps none.
        max_failures: files that may be unreadable, on each device, before the run stops with their list.
        quarantine: files and rows to leave out: the folder that `vjepa data check --out` wrote to, or a CSV with the
            column path.
        index: the file that `vjepa data index` wrote: opening a video that it knows reads no packets.
        clips_per_video: clips taken of a video each time it is opened, in training; divides the batch size. A batch
            then holds fewer videos, and an epoch more batches.
        extras: reads what belongs to a clip beside its frames, such as a robot's actions and states: a function, or a
            class with `__call__`, from a manifest row and the times of the frames (T,) in seconds to named tensors.
    """

    timeout_seconds: float = DEFAULT_SECONDS
    cache_bytes: int = 0
    max_failures: int = 100
    quarantine: str | None = None
    index: str | None = None
    clips_per_video: int = 1
    extras: ReadExtras | None = None

    def __post_init__(self) -> None:
        if min(self.timeout_seconds, self.cache_bytes, self.max_failures) < 0:
            raise SettingError(
                f"timeout_seconds {self.timeout_seconds:g}, cache_bytes {self.cache_bytes}, max_failures "
                f"{self.max_failures}: all must be at least 0."
            )
        if self.clips_per_video < 1:
            raise SettingError(f"clips_per_video {self.clips_per_video}: give at least 1.")
