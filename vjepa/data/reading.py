"""What reading may take, and how often it may fail: settings of the whole run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Limits of reading.

    Args:
        cache_bytes: memory for decoded videos, if all of them are of one size and fit; 0 keeps none.
        max_failures: files that may be unreadable, on each device, before the run stops with their list.
    """

    cache_bytes: int = 0
    max_failures: int = 100

    def __post_init__(self) -> None:
        if self.cache_bytes < 0 or self.max_failures < 0:
            raise ValueError(
                f"cache_bytes {self.cache_bytes}, max_failures {self.max_failures}: both must be at least 0."
            )
