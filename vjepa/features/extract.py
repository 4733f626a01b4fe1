"""The loop of an extraction: clips through the encoder, features into parts."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vjepa.data import EvalTransform, Manifest
from vjepa.extraction.clips import WindowBlock, WindowClips
from vjepa.extraction.errors import ExtractionError
from vjepa.extraction.parts import Part, Parts, Resume, part_batches
from vjepa.extraction.pooling import FeatureMaker
from vjepa.extraction.windows import Windows
from vjepa.types import PixelScale

log = logging.getLogger(__name__)

NOTICE_SECONDS = 10.0  # between two lines of progress


@dataclass(frozen=True)
class ClipSource:
    """Where clips come from: `manifest`, which `windows` of each row, and how they are read."""

    manifest: Manifest
    windows: Windows
    transform: EvalTransform
    decoder: str = "auto"
    num_workers: int = 0

    def blocks(self, todo: list[tuple[int, int]]) -> DataLoader[WindowBlock]:
        """Blocks of the rows `todo`, each from the window given on, in order."""
        clips = WindowClips(
            self.manifest, windows=self.windows, transform=self.transform, decoder=self.decoder, todo=todo
        )
        # a generator: else the loader draws from the random state of the process
        return DataLoader(clips, batch_size=None, num_workers=self.num_workers, generator=torch.Generator())


@dataclass
class _OpenUnit:
    """A unit at work: windows that wait for a batch, features that wait for a part."""

    parts: Parts
    unit: int
    at: Resume
    maker: FeatureMaker
    scale: PixelScale
    batch_size: int
    dropped: set[int] = field(default_factory=set)
    waiting: list[tuple[Tensor, tuple[int, float, float], int]] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    windows: list[tuple[int, float, float]] = field(default_factory=list)
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    expected: tuple[int, int] = (-1, 0)

    def __post_init__(self) -> None:
        self.number = self.at.number
        self.expected = (self.at.row, self.at.window)

    def add(self, block: WindowBlock, path: str) -> None:
        """Take the windows of a block, encode and write what is due."""
        if block.row in self.dropped:  # another worker has read on behind a window that is broken
            return
        row, window = self.expected
        if block.first != (window if block.row == row else 0):
            raise ExtractionError(
                f"{path}: its windows come out of order: it changed, or could be opened only at times. "
                "Run the command again: it goes on where it was."
            )
        self.expected = (block.row, block.first + len(block.video))
        for number, (clip, seconds) in enumerate(
            zip(block.video, block.seconds.tolist(), strict=True), start=block.first
        ):
            self.waiting.append((clip, (block.row, seconds[0], seconds[1]), number))
            if len(self.waiting) == self.batch_size:
                self._encode()
                if len(self.features) == part_batches(self.features[0]):
                    self._write(following=(block.row, number + 1))
        if block.failure is not None:
            log.warning("cannot read %s: %s", block.failure.path, block.failure.reason)
            self.failures.append((block.row, block.failure.path, block.failure.reason))
            self.dropped.add(block.row)

    def finish(self) -> None:
        """Write what is left."""
        if self.waiting:
            self._encode()
        self._write(following=(self.parts.end_of(self.unit), 0), is_last=True)

    def _encode(self) -> None:
        pixels = torch.stack([clip for clip, _, _ in self.waiting]).to(self.maker.device)
        self.features.append(self.maker(self.scale.normalised(pixels)))
        self.windows += [window for _, window, _ in self.waiting]
        self.waiting = []

    def _write(self, *, following: tuple[int, int], is_last: bool = False) -> None:
        features = torch.cat(self.features) if self.features else None
        part = Part(self.windows, self.failures, following, is_last)
        self.parts.write(self.unit, self.number, part, features)
        self.features, self.windows, self.failures = [], [], []
        self.number += 1


def extract_features(
    maker: FeatureMaker,
    source: ClipSource,
    parts: Parts,
    *,
    batch_size: int = 16,
    rank: int = 0,
    world_size: int = 1,
) -> int:
    """Write the parts that are missing, of every `world_size`-th unit from `rank` on; returns how many windows.

    Args:
        maker: From clips to features.
        source: The clips.
        parts: Where features go.
        batch_size: Clips of one forward.
        rank: Which of the processes that share the work this is.
        world_size: How many they are.
    """
    mine = range(rank, parts.num_units, world_size)
    left = {unit: at for unit in mine if (at := parts.resume(unit)) is not None}
    todo = {unit: parts.todo(unit, at) for unit, at in left.items()}
    if left and any(at.number or at.row % parts.rows for at in left.values()):
        log.info("going on with what is there: %d of %d units are left", len(left), len(mine))
    done, notice = 0, time.monotonic()
    blocks = iter(source.blocks([row for rows in todo.values() for row in rows]))
    ahead = next(blocks, None)
    for unit, at in left.items():
        work = _OpenUnit(parts, unit, at, maker, source.transform.pixel_scale, batch_size)
        while ahead is not None and parts.unit_of(ahead.row) == unit:
            work.add(ahead, source.manifest.rows[ahead.row].path)
            done += len(ahead.video)
            if time.monotonic() - notice > NOTICE_SECONDS:
                notice = time.monotonic()
                log.info("features of %d windows, at row %d of %d", done, ahead.row, len(source.manifest))
            ahead = next(blocks, None)
        work.finish()
    return done
