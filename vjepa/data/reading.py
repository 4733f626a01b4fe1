"""How video files are read, whatever is in them: how long that may take, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass

from vjepa.data.decoders.limited import DEFAULT_SECONDS


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Limits of reading.

    Args:
        timeout_seconds: how long a video may take to open, and a clip to decode, before the decode is ended and the
            file counts as unreadable; 0 for no limit, which is the default where there is none but on Linux.
        cache_bytes: memory for decoded videos, if all of them are of one size and fit; 0 keeps none.
    """

    timeout_seconds: float = DEFAULT_SECONDS
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        if self.timeout_seconds < 0 or self.cache_bytes < 0:
            raise ValueError(
                f"timeout_seconds {self.timeout_seconds:g}, cache_bytes {self.cache_bytes}: both must be at least 0."
            )
