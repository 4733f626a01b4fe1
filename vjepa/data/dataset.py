"""The clips of a manifest: each a function of (seed, epoch, row), whichever process reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from vjepa.data.cache import FrameCache
from vjepa.data.decoders.base import DecodeError
from vjepa.data.decoders.limited import DEFAULT_SECONDS, opener
from vjepa.data.manifest import Manifest, ManifestRow
from vjepa.data.order import SampleKey, row_identities
from vjepa.data.remote import Fetch, fetch_video, open_video
from vjepa.data.sampling import FrameSampler, ShortVideoError
from vjepa.data.transforms import ClipTransform
from vjepa.types import ClipBatch, ClipFailure


@dataclass(frozen=True)
class Sample:
    """One clip: `video` (3, T, H, W) float, or the `failure` in its place."""

    index: int
    label: int
    video: Float[Tensor, "3 t h w"] | None = None
    failure: ClipFailure | None = None


class VideoClips(Dataset[Sample]):
    """The clips of a manifest, by `SampleKey`, or by row number for epoch 0.

    A clip that cannot be read comes back as a failure, never as another clip and never as an exception.

    Args:
        manifest: which videos.
        sampler: which frames of a video.
        transform: from frames to network input.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a `Decoder`.
        timeout_seconds: how long a video may take to open, and a clip to decode, before it counts as
            unreadable; 0 for no limit.
        seed: of all random choices.
        cache: keeps decoded videos in memory.
        fetch: gives the bytes of videos that are no file of this machine.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        sampler: FrameSampler,
        transform: ClipTransform,
        decoder: str = "auto",
        timeout_seconds: float = DEFAULT_SECONDS,
        seed: int = 0,
        cache: FrameCache | None = None,
        fetch: Fetch = fetch_video,
    ) -> None:
        self.manifest = manifest
        self.sampler = sampler
        self.transform = transform
        self.seed = seed
        self.identities = row_identities(manifest)
        self._opener = opener(decoder, timeout_seconds)
        self._cache = cache
        self._fetch = fetch

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        key = SampleKey(0, key) if isinstance(key, int) else key
        index, row = key.index, self.manifest.rows[key.index]
        # the row's identity, not its number: clips stay as they were when a broken file leaves the manifest
        seeds = [self.seed, key.epoch, int(self.identities[index])]
        generator = np.random.default_rng([*seeds, key.draw] if key.draw else seeds)
        try:
            frames = self._frames(row, generator)
        except (DecodeError, ShortVideoError) as e:
            reason = e.reason if isinstance(e, DecodeError) else str(e)
            return Sample(index=index, label=row.label, failure=ClipFailure(path=row.path, reason=reason))
        return Sample(index=index, label=row.label, video=self.transform(frames, generator))

    def _frames(self, row: ManifestRow, generator: np.random.Generator) -> UInt8[Tensor, "t 3 h w"]:
        if self._cache is not None and (kept := self._cache.find(row.path)) is not None:
            return kept[1][self._choose(row, kept[0].numpy(), generator)]
        with open_video(self._opener, row.path, fetch=self._fetch) as video:
            chosen = self._choose(row, video.timestamps, generator)
            if self._cache is not None and self._cache.keep(row.path, video):
                kept = self._cache.find(row.path)
                assert kept is not None
                return kept[1][chosen]
            return video.frames_at(chosen)

    def _choose(
        self, row: ManifestRow, timestamps: Float64[ndarray, "n"], generator: np.random.Generator
    ) -> list[int]:
        return self.sampler.sample(timestamps, generator, row.start, row.end).tolist()


def collate(samples: Sequence[Sample]) -> ClipBatch:
    """A batch of the clips that could be read, and the list of those that could not."""
    good = [s for s in samples if s.video is not None]
    videos = [s.video for s in good if s.video is not None]
    return ClipBatch(
        video=torch.stack(videos) if videos else torch.empty(0, 3, 0, 0, 0),
        label=torch.tensor([s.label for s in good], dtype=torch.int64),
        index=torch.tensor([s.index for s in good], dtype=torch.int64),
        failures=tuple(s.failure for s in samples if s.failure is not None),
    )
