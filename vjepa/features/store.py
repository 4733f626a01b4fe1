"""The store of a frozen pass: features computed once, by any number of processes, and not lost to a kill."""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from vjepa.features.errors import FeaturesError
from vjepa.files import write_text
from vjepa.readers import content_of, parse_json
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 600.0  # without a new record from any other process


@dataclass(frozen=True)
class Ranks:
    """Which of `world_size` processes that share the work this is.

    It does parts rank, rank + world_size, rank + 2 world_size, ...
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise FeaturesError(
                f"got rank {self.rank}, world_size {self.world_size}: ranks are 0 to world_size - 1."
            )

    def share(self, count: int) -> range:
        """Return the numbers of this process's parts, of `count` parts."""
        return range(self.rank, count, self.world_size)


ALONE = Ranks()


@dataclass(frozen=True)
class Entry:
    """What was added at once: the `places` of records, with their `shape`, type and checksums.

    `failures` are by the caller's number (place or row). `note` is data that the caller gets again from
    `entries`.
    """

    places: list[int]
    failures: dict[int, ClipFailure] = field(default_factory=dict)
    note: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    dtype: str = "float32"
    crc32: list[int] = field(default_factory=list)


class RecordStore:
    """Tensors of one shape and type at numbered places: in a folder, or in memory.

    In a folder the records lie in one file, each at its place, and are mapped from it. Each process writes its own
    journal, in which a line with checksums follows the records that it lists: a process killed at any moment loses
    what it was adding. Without a folder the records are in RAM or, where there are many, in a scratch file.

    Args:
        folder: Where the files are; None: in memory.
        name: Prefix of the file names, so that a folder can hold several stores.
        num_records: How many places there are; None: as many as are added, in a folder only.
        max_ram_gb: Size in 10^9 bytes above which records in memory go to the scratch file.
        scratch: Folder for that file, which the caller deletes; None: too large is an error.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        name: str = "records",
        num_records: int | None = None,
        max_ram_gb: float = 8.0,
        scratch: Path | None = None,
    ) -> None:
        assert folder is not None or num_records is not None
        self.folder, self.name, self.num_records = folder, name, num_records
        self.max_ram_gb, self.scratch = max_ram_gb, scratch
        self._memory: Tensor | None = None
        self._added: list[Entry] = []
        self._journal = f"{name}.journal-{uuid.uuid4().hex}.jsonl"

    def add(
        self,
        places: Sequence[int],
        records: Shaped[Tensor, "records *shape"] | None,
        *,
        failures: Mapping[int, ClipFailure] | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a batch.

        Failures, by number, count as done; `note` is anything that JSON holds.
        """
        entry = Entry(list(places), dict(failures or {}), dict(note or {}))
        if records is not None and len(records):
            assert len(records) == len(places)
            sums = self._write(places, records.contiguous())
            dtype = str(records.dtype).removeprefix("torch.")
            entry = replace(entry, shape=tuple(records.shape[1:]), dtype=dtype, crc32=sums)
        if self.folder is None:
            self._added.append(entry)
            return
        with (self.folder / self._journal).open("a", encoding="utf-8") as journal:
            journal.write(_line(entry))

    def entries(self) -> list[Entry]:
        """Return everything that was added, in no certain order."""
        if self.folder is None:
            return list(self._added)
        found = []
        for path in self._journals():
            whole, _, _ = path.read_bytes().rpartition(b"\n")  # the last line may be cut off
            with content_of(path, "the journal of an extraction; delete its folder to begin again"):
                found += [_entry(parse_json(line, path, n)) for n, line in enumerate(whole.splitlines(), 1)]
        return found

    def failures(self) -> dict[int, ClipFailure]:
        """Return what failed, by number, ascending."""
        return dict(sorted(item for entry in self.entries() for item in entry.failures.items()))

    def missing(self, places: Iterable[int]) -> list[int]:
        """Return the places still to compute: neither failed nor with an intact record."""
        good: set[int] = set()
        failed: set[int] = set()
        damaged: set[int] = set()
        for entry in self.entries():
            failed.update(entry.failures)
            whole = self.intact(entry)
            good.update(whole)
            damaged.update(set(entry.places) - set(whole))
        wanted = list(places)
        if lost := sum(place in damaged and place not in good for place in wanted):
            log.warning("%s: %d clips are damaged and computed again", self._file, lost)
        return [place for place in wanted if place not in good and place not in failed]

    def intact(self, entry: Entry) -> list[int]:
        """Return the places of an entry whose records have the checksums that were written."""
        if self.folder is None:
            return entry.places
        if entry.shape is None or not self._file.exists():
            return []
        size = _bytes_of(entry)
        whole = self._file.stat().st_size // size if size else 0
        raw = np.memmap(self._file, np.uint8, mode="r") if whole else np.empty(0, np.uint8)
        return [
            place
            for place, right in zip(entry.places, entry.crc32, strict=True)
            if place < whole and zlib.crc32(raw[place * size : (place + 1) * size].data) == right
        ]

    def keep(self, entries: Iterable[Entry]) -> None:
        """Forget all entries but these; no other process may add any at the same time."""
        assert self.folder is not None
        old = [path for path in self._journals() if path.name != self._journal]
        lines = [_line(entry) for entry in entries]
        write_text("".join(lines), self.folder / self._journal)
        for path in old:
            path.unlink()

    def records(self) -> Shaped[Tensor, "records *shape"] | None:
        """Return all records, mapped to memory, zero at places without one; None if there is no record."""
        if self.folder is None:
            return self._memory
        entries = [entry for entry in self.entries() if entry.shape is not None]
        if not entries:
            return None
        last = 1 + max(place for entry in entries for place in entry.places)
        count, first = self.num_records or last, entries[0]
        # "c" (copy on write): the tensor may be changed, the file does not change
        raw = np.memmap(self._file, np.uint8, mode="c", shape=(count * _bytes_of(first),))
        assert first.shape is not None
        return torch.from_numpy(raw).view(getattr(torch, first.dtype)).reshape(count, *first.shape)

    def wait(self) -> None:
        """Wait until the other processes have computed their records.

        Raises:
            FeaturesError: If none of them adds any for ten minutes.
        """
        assert self.num_records is not None
        count, since = -1, time.monotonic()
        while (found := self._count()) < self.num_records:
            if found != count:
                count, since = found, time.monotonic()
                log.info("waiting for other processes: %d of %d clips are there", found, self.num_records)
            if time.monotonic() - since > PATIENCE_SECONDS:
                raise FeaturesError(
                    f"{self.num_records - found} of {self.num_records} clips are missing in {self.folder}, and no "
                    "process adds any. Start those that stopped again, or one alone, with --world_size 1."
                )
            time.sleep(POLL_SECONDS)

    @property
    def _file(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.name}.bin"

    def _journals(self) -> list[Path]:
        assert self.folder is not None
        return sorted(self.folder.glob(f"{self.name}.journal-*.jsonl"))

    def _count(self) -> int:
        return len({number for e in self.entries() for number in (*e.places, *e.failures)})

    def _write(self, places: Sequence[int], records: Tensor) -> list[int]:
        """Write records at their places and return their checksums; in memory there are none."""
        if self.folder is None:
            self._remember(places, records)
            return []
        raw = records.view(torch.uint8).reshape(len(records), -1).numpy()
        size = raw.shape[1]
        self._file.touch()
        with self._file.open("r+b") as file:
            if os.fstat(file.fileno()).st_size < size * (self.num_records or 0):
                file.truncate(size * (self.num_records or 0))  # sparse; the same from every process
            for place, record in zip(places, raw, strict=True):
                file.seek(place * size)
                file.write(record.tobytes())
        return [zlib.crc32(record) for record in raw]

    def _remember(self, places: Sequence[int], records: Tensor) -> None:
        if self._memory is None:
            assert self.num_records is not None
            shape = (self.num_records, *records.shape[1:])
            self._memory = space(shape, records.dtype, max_ram_gb=self.max_ram_gb, scratch=self.scratch)
        self._memory[list(places)] = records


def space(
    shape: tuple[int, ...], dtype: torch.dtype, *, max_ram_gb: float, scratch: Path | None
) -> Shaped[Tensor, "..."]:
    """Return an empty tensor in RAM, or mapped from a file if it is large.

    Raises:
        FeaturesError: If it is large and there is no folder.
    """
    count = torch.Size(shape).numel()
    gigabytes = count * dtype.itemsize / 1e9
    if gigabytes <= max_ram_gb:
        return torch.empty(shape, dtype=dtype)
    if scratch is None:
        raise FeaturesError(
            f"tokens of {shape[0]} clips take {gigabytes:.1f} GB, max_ram_gb is {max_ram_gb:g}. "
            "Raise max_ram_gb, or give a scratch folder for a file."
        )
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / f"tokens_{len(list(scratch.iterdir()))}.bin"
    log.info("tokens of %d clips take %.1f GB: kept in %s", shape[0], gigabytes, file)
    return torch.from_file(str(file), shared=True, size=count, dtype=dtype).view(shape)


def _line(entry: Entry) -> str:
    failures = {number: [failure.path, failure.reason] for number, failure in entry.failures.items()}
    return json.dumps(asdict(entry) | {"failures": failures}) + "\n"


def _entry(line: dict[str, Any]) -> Entry:
    failures = {int(number): ClipFailure(*failure) for number, failure in line["failures"].items()}
    shape = None if line["shape"] is None else tuple(line["shape"])
    return Entry(**line | {"failures": failures, "shape": shape})


def _bytes_of(entry: Entry) -> int:
    assert entry.shape is not None
    return torch.Size(entry.shape).numel() * getattr(torch, entry.dtype).itemsize
