"""The work of an extraction in units: what ranks share, and where a stopped one continues.

A unit is a run of manifest rows that one rank does. Batches never cross units: neither ranks, nor workers, nor a
restart change which clips go through the encoder together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vjepa.features.store import Entry, RecordStore

MAX_UNITS = 64  # below: enough to share among ranks
UNIT_BATCHES = 16  # at most, so that a restart has little to look through


def unit_rows(num_rows: int, *, batch_size: int, one_clip: bool) -> int:
    """Return the rows of a unit, for any number of ranks: whole batches if each row gives one window.

    >>> unit_rows(100_000, batch_size=16, one_clip=True), unit_rows(20, batch_size=16, one_clip=False)
    (256, 1)
    """
    rows = min(math.ceil(num_rows / MAX_UNITS), UNIT_BATCHES * batch_size)
    return math.ceil(rows / batch_size) * batch_size if one_clip else rows


@dataclass(frozen=True)
class Resume:
    """Where a unit continues: its next `batch`, `place`, `row` and `window`; rows that `failed` before."""

    batch: int
    place: int
    row: int
    window: int
    failed: tuple[int, ...]


class Units:
    """The units of an extraction, each with its own store in one folder.

    An entry of a store is a batch. Its failures are those of manifest rows; its note has the number of the `batch`,
    row and seconds of the first and last frame of each of its `windows`, row and window of what is `following`, and
    whether it `is_last`. The note also counts the windows that are padded, `num_padded`.
    """

    def __init__(self, folder: Path, *, num_rows: int, rows: int) -> None:
        self.folder, self.num_rows, self.rows = folder, num_rows, rows
        self.num_units = math.ceil(num_rows / rows)

    def store(self, unit: int) -> RecordStore:
        """Return the store of a unit."""
        return RecordStore(self.folder, name=f"{unit:06d}")

    def batches(self, unit: int) -> list[Entry]:
        """Return the batches of a unit that are done, in order, up to the first that is not."""
        found = {entry.note["batch"]: entry for entry in self.store(unit).entries()}
        done = next(number for number in range(len(found) + 1) if number not in found)
        return [found[number] for number in range(done)]

    def resume(self, unit: int) -> Resume | None:
        """Return where to continue a unit: at the first batch that is missing or damaged; None if it is done."""
        store, good = self.store(unit), list[Entry]()
        batches = self.batches(unit)
        for entry in batches:
            if store.intact(entry) != entry.places:
                store.keep(good)  # else another rank would take the unit for done
                break
            good.append(entry)
        if good and good[-1].note["is_last"]:
            return None
        row, window = good[-1].note["following"] if good else (unit * self.rows, 0)
        failed = tuple(row for entry in good for row in entry.failures)
        return Resume(len(good), sum(len(entry.places) for entry in good), row, window, failed)

    def unit_of(self, row: int) -> int:
        """Return the unit of a manifest row."""
        return row // self.rows

    def end_of(self, unit: int) -> int:
        """Return the first manifest row after a unit."""
        return min((unit + 1) * self.rows, self.num_rows)

    def todo(self, unit: int, at: Resume) -> list[tuple[int, int]]:
        """Return the rows of a unit that are to do, each with its first window."""
        rows = [(row, at.window if row == at.row else 0) for row in range(at.row, self.end_of(unit))]
        return [(row, first) for row, first in rows if row not in at.failed]

    def are_done(self) -> bool:
        """Return whether every unit is done."""
        found = (self.batches(unit) for unit in range(self.num_units))
        return all(batches and batches[-1].note["is_last"] for batches in found)
