"""Settings of a run's reading: time and memory limits, and what happens to unreadable files."""

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
    """Settings of how videos are read.

    Args:
        timeout_seconds: Time limit to open a video and to decode a clip. Beyond it the decode is ended and the file
            counts as unreadable. 0 sets no limit, as is the default on systems other than Linux.
        cache_bytes: Memory for decoded videos, used if all of them have one size and fit; 0 keeps none.
        max_failures: Largest number of unreadable files per device; with more, the run stops and lists them.
        quarantine: Files and rows to exclude: the folder that `vjepa data check --out` wrote to, or a CSV with the
            column path.
        index: A file with the packet times of each video; a video found in it opens without reading its
            packets. "auto" is a file in the user's cache that the first pass fills. Else give a file that
            `vjepa data index` wrote; null uses none.
        clips_per_video: Clips read in training each time a video is opened; it must divide the batch size. Above 1, a
            batch has fewer videos, and an epoch more batches.
        extras: Reads further tensors of a clip, such as a robot's actions and states. A function, or a class with
            `__call__`, from a manifest row and the times of the frames (T,) in seconds to named tensors.
    """

    timeout_seconds: float = DEFAULT_SECONDS
    cache_bytes: int = 0
    max_failures: int = 100
    quarantine: str | None = None
    index: str | None = "auto"
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
