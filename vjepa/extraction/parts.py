"""The work of an extraction in parts, each a file that is there whole or not at all: what can be killed at any moment.

A unit is a run of manifest rows that one rank does. Its windows are written in parts of so many batches, and batches
never cross units: neither ranks, nor workers, nor a restart change which clips go through the encoder together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from vjepa.files import write_tensors, write_text

MAX_UNITS = 64  # below: enough to share among ranks
UNIT_BATCHES = 16  # at most, so that a restart has little to look through
PART_BATCHES, PART_BYTES = 16, 64e6  # at most, of one part: it lies in memory until it is written


@dataclass(frozen=True)
class Part:
    """Some windows of a unit.

    `windows`: manifest row, and seconds of the first and the last frame, of each; `failures`: row, path and reason
    of what could not be read before the last of them; `following`: row and window to go on with; `is_last` of its
    unit.
    """

    windows: list[tuple[int, float, float]]
    failures: list[tuple[int, str, str]]
    following: tuple[int, int]
    is_last: bool


def unit_rows(num_rows: int, *, batch_size: int, one_clip: bool) -> int:
    """Rows of a unit, for any number of ranks.

    >>> unit_rows(100_000, batch_size=16, one_clip=True), unit_rows(20, batch_size=16, one_clip=False)
    (256, 1)

    Args:
        num_rows: Of the manifest.
        batch_size: Windows of a batch.
        one_clip: Whether a row gives one window: then units are whole batches.
    """
    rows = min(math.ceil(num_rows / MAX_UNITS), UNIT_BATCHES * batch_size)
    return math.ceil(rows / batch_size) * batch_size if one_clip else rows


def part_batches(features: Float[Tensor, "b *feature"]) -> int:
    """Batches of a part, from the features of the first.

    Args:
        features: Of one batch.
    """
    return max(1, min(PART_BATCHES, int(PART_BYTES / features.nbytes)))


class Parts:
    """The parts of an extraction in a folder.

    Args:
        folder: Where they lie.
        num_rows: Of the manifest.
        rows: Manifest rows of a unit.
    """

    def __init__(self, folder: Path, *, num_rows: int, rows: int) -> None:
        self.folder, self.num_rows, self.rows = folder, num_rows, rows
        self.num_units = math.ceil(num_rows / rows)

    def write(self, unit: int, number: int, part: Part, features: Float[Tensor, "w *feature"] | None) -> None:
        """Write part `number` of `unit`; `features` of its windows, None if it has none."""
        if features is not None:
            write_tensors({"features": features}, self._path(unit, number, "safetensors"))
        # after its features: a part that has this file is whole
        write_text(json.dumps(asdict(part)), self._path(unit, number, "json"))

    def of(self, unit: int) -> Iterator[Part]:
        """The parts of a unit that are written, in order."""
        number = 0
        while (path := self._path(unit, number, "json")).exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            windows = [(row, start, end) for row, start, end in content["windows"]]
            failures = [(row, name, reason) for row, name, reason in content["failures"]]
            row, window = content["following"]
            yield Part(windows, failures, (row, window), content["is_last"])
            number += 1

    def features(self, unit: int, number: int) -> Float[Tensor, "w *feature"]:
        """Features of a part that has windows."""
        return load_file(self._path(unit, number, "safetensors"))["features"]

    def resume(self, unit: int) -> Resume | None:
        """Where to go on with a unit; None if it is done."""
        at = Resume(number=0, row=unit * self.rows, window=0, failed=())
        for part in self.of(unit):
            if part.is_last:
                return None
            failed = (*at.failed, *(row for row, _, _ in part.failures))
            at = Resume(at.number + 1, *part.following, failed)
        return at

    def unit_of(self, row: int) -> int:
        """The unit of a manifest row."""
        return row // self.rows

    def end_of(self, unit: int) -> int:
        """The first manifest row after a unit."""
        return min((unit + 1) * self.rows, self.num_rows)

    def todo(self, unit: int, at: Resume) -> list[tuple[int, int]]:
        """Rows of a unit that are to do, each with its first window."""
        rows = [(row, at.window if row == at.row else 0) for row in range(at.row, self.end_of(unit))]
        return [(row, first) for row, first in rows if row not in at.failed]

    def is_done(self) -> bool:
        """Whether every unit is."""
        return all(self.resume(unit) is None for unit in range(self.num_units))

    def _path(self, unit: int, number: int, suffix: str) -> Path:
        return self.folder / f"{unit:06d}-{number:06d}.{suffix}"


@dataclass(frozen=True)
class Resume:
    """Where a unit goes on: the `number` of its next part, `row` and `window`; rows that `failed` before."""

    number: int
    row: int
    window: int
    failed: tuple[int, ...]


def settings_of(path: Path) -> dict[str, Any] | None:
    """What a file of settings says; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
