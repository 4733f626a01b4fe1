"""The loop of an extraction: windows of videos through a frozen encoder, features into the stores of units."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from vjepa.data import Manifest
from vjepa.data.loading.workers import LOOK_SECONDS, from_workers
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.clips import WindowBlock, WindowClips
from vjepa.features.encode import encode
from vjepa.features.errors import FeaturesError
from vjepa.features.pooling import FeatureMaker
from vjepa.features.store import ALONE, Ranks
from vjepa.features.units import Resume, Units
from vjepa.types import ClipFailure, PixelScale

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipSource:
    """Where clips come from: the videos of a `manifest`, cut by `spec`, read in `num_workers` processes.

    With `thorough`, their content belongs to the identity of what is made of them, beside sizes and times of change.
    """

    manifest: Manifest
    spec: ClipSpec
    decoder: str = "auto"
    num_workers: int = 0
    thorough: bool = False

    def blocks(self, todo: list[tuple[int, int]]) -> Iterator[WindowBlock]:
        """Yield blocks of the rows `todo`, each from the window given on, in order."""
        left = list(todo)

        def rest() -> DataLoader[WindowBlock]:
            clips = WindowClips(self.manifest, spec=self.spec, decoder=self.decoder, todo=list(left))
            return DataLoader(
                clips,
                batch_size=None,
                num_workers=self.num_workers,
                timeout=LOOK_SECONDS if self.num_workers else 0,
                generator=torch.Generator(),  # else the loader draws from the random state of the process
            )

        for block in from_workers(rest, lambda: self.manifest.rows[left[0][0]].path):
            while left[0][0] < block.row:
                left.pop(0)
            if left[0][0] == block.row:  # else another worker has read on behind a broken window
                left[0] = (block.row, block.first + len(block))
                if block.failure is not None and len(left) > 1:
                    left.pop(0)  # nothing more is read of it
            yield block


@dataclass(frozen=True)
class WindowBatch:
    """Windows that go through the encoder together, in bytes, and what `Units` notes of them."""

    unit: int
    place: int
    video: UInt8[Tensor, "w 3 t h w2"]
    scale: PixelScale
    failures: dict[int, ClipFailure]
    note: dict[str, object]

    def __len__(self) -> int:
        return len(self.video)


@dataclass
class UnitBuffer:
    """Buffers the windows of a unit into batches."""

    unit: int
    at: Resume
    scale: PixelScale
    batch_size: int
    pixels: list[Tensor] = field(default_factory=list)
    windows: list[tuple[int, float, float]] = field(default_factory=list)
    failures: dict[int, ClipFailure] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    num_padded: int = 0

    def __post_init__(self) -> None:
        self.number, self.place = self.at.batch, self.at.place
        self.expected = (self.at.row, self.at.window)

    def add(self, block: WindowBlock, path: str) -> Iterator[WindowBatch]:
        """Take the windows of a block and yield the batches that are full."""
        if block.row in self.dropped:  # another worker has read on behind a window that is broken
            return
        row, window = self.expected
        if block.first != (window if block.row == row else 0):
            raise FeaturesError(
                f"{path}: its windows come out of order: it changed, or could be opened only at times. "
                "Run the command again: it continues where it stopped."
            )
        self.expected = (block.row, block.first + len(block.video))
        for number, (clip, (start, end), padded) in enumerate(
            zip(block.video, block.seconds.tolist(), block.padded, strict=True), start=block.first
        ):
            self.num_padded += padded
            self.pixels.append(clip)
            self.windows.append((block.row, start, end))
            if len(self.pixels) == self.batch_size:
                yield self.batch(following=(block.row, number + 1))
        if block.failure is not None:
            log.warning("cannot read %s: %s", block.failure.path, block.failure.reason)
            self.failures[block.row] = block.failure
            self.dropped.add(block.row)

    def batch(self, *, following: tuple[int, int], is_last: bool = False) -> WindowBatch:
        """Return what has been buffered as one batch; the last one may be empty.

        `following` is the manifest row and window after it.
        """
        video = torch.stack(self.pixels) if self.pixels else torch.empty(0, 3, 0, 0, 0, dtype=torch.uint8)
        note = {
            "batch": self.number,
            "windows": self.windows,
            "following": following,
            "is_last": is_last,
            "num_padded": self.num_padded,
        }
        made = WindowBatch(self.unit, self.place, video, self.scale, self.failures, note)
        self.number, self.place = self.number + 1, self.place + len(video)
        self.pixels, self.windows, self.failures, self.num_padded = [], [], {}, 0
        return made


def extract_features(
    maker: FeatureMaker,
    source: ClipSource,
    units: Units,
    *,
    batch_size: int = 16,
    ranks: Ranks = ALONE,
) -> int:
    """Make the features of this process's units that are missing, and return how many windows that were."""
    mine = ranks.share(units.num_units)
    left = {unit: at for unit in mine if (at := units.resume(unit)) is not None}
    if left and any(at.batch for at in left.values()):
        log.info("continuing: %d of %d units are left", len(left), len(mine))
    done, stores = 0, {unit: units.store(unit) for unit in left}
    batches = _batches(source, units, left, batch_size)
    for batch, features in encode(maker.encoder, batches, maker, dtype=maker.dtype, of="windows"):
        places = range(batch.place, batch.place + len(batch))
        stores[batch.unit].add(places, features, failures=batch.failures, note=batch.note)
        done += len(batch)
    return done


def _batches(
    source: ClipSource, units: Units, left: dict[int, Resume], batch_size: int
) -> Iterator[WindowBatch]:
    """Yield the batches of the units that are left, in order."""
    todo = [row for unit, at in left.items() for row in units.todo(unit, at)]
    blocks = source.blocks(todo)
    ahead = next(blocks, None)
    for unit, at in left.items():
        buffer = UnitBuffer(unit, at, source.spec.pixel_scale, batch_size)
        while ahead is not None and units.unit_of(ahead.row) == unit:
            yield from buffer.add(ahead, source.manifest.rows[ahead.row].path)
            ahead = next(blocks, None)
        yield buffer.batch(following=(units.end_of(unit), 0), is_last=True)
