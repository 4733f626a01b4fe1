"""The failure policy: unreadable clips are counted and listed, and their number is limited."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from vjepa.data.loading.ranks import gathered
from vjepa.errors import VjepaError
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

FIRST_CLIPS = 64  # if none of these is readable, the run stops
MAX_LISTED = 20  # files named in an error; the rest is counted


class TooManyUnreadableClipsError(VjepaError, RuntimeError):
    """More unreadable files than allowed; the message lists them."""


class FailureLedger:
    """The unreadable files of a run, each with its reason; with more than `max_failures`, the run stops.

    It also counts the clips whose video is too short: they repeat its last frame.
    """

    def __init__(self, *, max_failures: int) -> None:
        self.max_failures = max_failures
        self.reasons: dict[str, str] = {}
        self._tried = 0
        self._readable = 0
        self._padded = 0

    @property
    def padded_share(self) -> float:
        """The share of clips that repeat the last frame of a video too short for them, of all that were read."""
        return self._padded / max(self._readable, 1)

    def observe(self, num_clips: int, failures: Iterable[ClipFailure], *, num_padded: int = 0) -> None:
        """Count the `num_clips` readable clips of a batch, the `num_padded` among them, and the unreadable ones.

        Raises:
            TooManyUnreadableClipsError: If there are more than allowed, or none of the first clips can be read.
        """
        failures = list(failures)
        self._tried += num_clips + len(failures)
        self._readable += num_clips
        if num_padded and not self._padded:
            log.warning(
                "some videos are shorter than a clip, which repeats their last frame; the report has their share. "
                "Lower num_frames or raise fps of --data.sampler, or set its short to error"
            )
        self._padded += num_padded
        for failure in failures:
            if failure.path not in self.reasons:
                self.reasons[failure.path] = failure.reason
                log.warning("cannot read %s: %s", failure.path, failure.reason)
        advice = "remove them from the manifest or raise --data.reading.max_failures"
        if len(self.reasons) > self.max_failures:
            raise TooManyUnreadableClipsError(f"{self.summary()}; {self.max_failures} are allowed: {advice}")
        if self._tried >= FIRST_CLIPS and not self._readable:
            self.nothing_left()

    def restore(self, failures: Iterable[ClipFailure]) -> None:
        """Add the files that an earlier part of the run could not read."""
        for failure in failures:
            self.reasons.setdefault(failure.path, failure.reason)

    def nothing_left(self) -> NoReturn:
        """Stop a run that has nothing to train on, by a `TooManyUnreadableClipsError`."""
        raise TooManyUnreadableClipsError(
            f"no readable clip among the first {self._tried}, or none remains; {self.summary()}. "
            "Repair the files or the manifest; `vjepa data check` tries every file"
        )

    def gather(self) -> None:
        """Add the files that the other ranks could not read; all ranks must call this together."""
        for reasons in gathered(self.reasons):
            self.reasons = self.reasons | {p: r for p, r in reasons.items() if p not in self.reasons}
        counts = gathered((self._readable, self._padded))
        self._readable, self._padded = (sum(each) for each in zip(*counts, strict=True))

    def summary(self) -> str:
        """Return how many files could not be read, and which."""
        if not self.reasons:
            return "all clips were readable"
        count = len(self.reasons)
        listed = "; ".join(f"{path} ({reason})" for path, reason in list(self.reasons.items())[:MAX_LISTED])
        more = f"; and {count - MAX_LISTED} more" if count > MAX_LISTED else ""
        return f"{count} unreadable file{'s' * (count != 1)}: {listed}{more}"

    def write(self, path: str | Path) -> None:
        """Write path and reason of each file as CSV."""
        with Path(path).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "reason"])
            writer.writerows(self.reasons.items())
