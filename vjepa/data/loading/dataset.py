"""The clips of a manifest; each is a function of (seed, epoch, row, draw), whichever process reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from vjepa.data.decoders.limited import DEFAULT_SECONDS, opener
from vjepa.data.decoders.opening import open_video
from vjepa.data.loading.frame_cache import FrameCache
from vjepa.data.loading.order import SampleKey
from vjepa.data.loading.reading import ReadExtras
from vjepa.data.manifests.identity import row_identities
from vjepa.data.manifests.rows import Manifest, ManifestRow
from vjepa.data.remote import Fetch, fetch_video
from vjepa.data.sampling import FrameSampler, ShortVideoError, is_padded, usable_part
from vjepa.data.transforms.video import ClipTransform, PixelTransform
from vjepa.errors import DecodeError, SettingError
from vjepa.types import ClipBatch, ClipFailure, PixelScale


@dataclass(frozen=True)
class Sample:
    """The clips of one row: `video` (3, T, H, W) is the first one, or `failure` says why it cannot be read.

    `more` holds the further clips of the row (`clips_per_video` above 1). Pixels are float and normalised, or
    uint8 with the `scale` that normalises them. `extras` is empty, or holds one mapping of further named
    tensors per clip. `is_padded`: the clip repeats the last frame of a video that is too short.
    """

    index: int
    label: int
    video: Float[Tensor, "3 t h w"] | UInt8[Tensor, "3 t h w"] | None = None
    failure: ClipFailure | None = None
    more: tuple[Tensor, ...] = ()
    scale: PixelScale | None = None
    extras: tuple[dict[str, Tensor], ...] = ()
    is_padded: bool = False


class _Chosen(NamedTuple):
    """The frame numbers of all clips, one clip after the other, the times of each clip's frames, and see `Sample`."""

    indices: list[int]
    times: Float64[ndarray, "clips t"]
    is_padded: bool


@dataclass(kw_only=True, eq=False)
class VideoClips(Dataset[Sample]):
    """The clips of a manifest, by `SampleKey`, or by row number for epoch 0.

    A clip that cannot be read (`DecodeError`, `ShortVideoError`) becomes a failure, never another clip. Any
    other error ends the run.

    Args:
        manifest: The videos.
        sampler: Chooses the frames of a video.
        transform: Converts frames to network input.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a `Decoder`.
        timeout_seconds: Time limit to open a video and to decode a clip; beyond it the video counts as unreadable.
            0 sets no limit.
        seed: Seed of all random choices.
        cache: Keeps decoded videos in memory.
        fetch: Returns the bytes of videos that are not files of this machine.
        clips_per_video: Clips read from a video while it is open, each drawn independently.
        index: Packet index of the videos, if there is one.
        as_pixels: Keep clips in uint8, if the transform allows it; the device normalises them.
        extras: Reads further tensors of a clip, see `Reading`.
    """

    manifest: Manifest = field(kw_only=False)
    sampler: FrameSampler
    transform: ClipTransform
    decoder: str = "auto"
    timeout_seconds: float = DEFAULT_SECONDS
    seed: int = 0
    cache: FrameCache | None = None
    fetch: Fetch = fetch_video
    clips_per_video: int = 1
    index: str | None = None
    as_pixels: bool = False
    extras: ReadExtras | None = None

    def __post_init__(self) -> None:
        self.identities = row_identities(self.manifest)
        self._opener = opener(self.decoder, self.timeout_seconds, index=self.index)
        transform = self.transform
        self._pixels = transform if self.as_pixels and isinstance(transform, PixelTransform) else None

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        key = SampleKey(0, key) if isinstance(key, int) else key
        index, row = key.index, self.manifest.rows[key.index]
        # the row's identity, not its number: the clips do not change when a broken file is removed from the manifest
        seeds = [self.seed, key.epoch, int(self.identities[index])]
        seeds = [*seeds, key.draw] if key.draw else seeds
        generators = [np.random.default_rng(seeds)]
        # the draw stands twice, so that clips stay those of earlier versions
        generators += [np.random.default_rng([*seeds, key.draw, i]) for i in range(1, self.clips_per_video)]
        try:
            frames, chosen = self._frames(row, generators)
            extras = () if self.extras is None else tuple(self.extras(row, each) for each in chosen.times)
        except (DecodeError, ShortVideoError) as e:
            reason = e.reason if isinstance(e, DecodeError) else str(e)
            return Sample(index=index, label=row.label, failure=ClipFailure(path=row.path, reason=reason))
        transform = self._pixels.pixels if self._pixels else self.transform
        first, *more = [transform(part, g) for part, g in zip(frames, generators, strict=True)]
        scale = self._pixels.pixel_scale if self._pixels else None
        return Sample(
            index=index,
            label=row.label,
            video=first,
            more=tuple(more),
            scale=scale,
            extras=extras,
            is_padded=chosen.is_padded,
        )

    def _frames(
        self, row: ManifestRow, generators: Sequence[np.random.Generator]
    ) -> tuple[tuple[UInt8[Tensor, "t 3 h w"], ...], _Chosen]:
        """Return the frames of each clip, decoded in one pass, and how they were chosen."""
        if self.cache is not None and (kept := self.cache.find(row.path)) is not None:
            chosen = self._choose(row, kept[0].numpy(), generators)
            return kept[1][chosen.indices].chunk(len(generators)), chosen
        with open_video(self._opener, row.path, fetch=self.fetch) as video:
            chosen = self._choose(row, video.timestamps, generators)
            if self.cache is not None and self.cache.keep(row.path, video):
                kept = self.cache.find(row.path)
                assert kept is not None
                return kept[1][chosen.indices].chunk(len(generators)), chosen
            return video.frames_at(chosen.indices).chunk(len(generators)), chosen

    def _choose(
        self, row: ManifestRow, timestamps: Float64[ndarray, "n"], generators: Sequence[np.random.Generator]
    ) -> _Chosen:
        clips = np.stack([self.sampler.sample(timestamps, g, row.start, row.end) for g in generators])
        part = usable_part(timestamps, row.start, row.end)
        padded = any(is_padded(clip, part) for clip in clips)
        return _Chosen(clips.flatten().tolist(), timestamps[clips], padded)


def collate(samples: Sequence[Sample]) -> ClipBatch:
    """Return a batch of the readable clips, with the list of the failures."""
    good = [s for s in samples if s.video is not None]
    videos = [clip for s in good if s.video is not None for clip in (s.video, *s.more)]
    extras = [named for s in good for named in s.extras]
    names = dict.fromkeys(name for named in extras for name in named)
    each = 1 + len(good[0].more) if good else 1
    return ClipBatch(
        video=torch.stack(videos) if videos else torch.empty(0, 3, 0, 0, 0),
        label=torch.tensor([s.label for s in good], dtype=torch.int64).repeat_interleave(each),
        index=torch.tensor([s.index for s in good], dtype=torch.int64).repeat_interleave(each),
        failures=tuple(s.failure for s in samples if s.failure is not None),
        scale=good[0].scale if good else None,
        extras={name: _stacked(name, extras) for name in names},
        num_padded=sum(s.is_padded for s in good),
    )


def _stacked(name: str, extras: Sequence[dict[str, Tensor]]) -> Tensor:
    found = {None if name not in named else tuple(named[name].shape) for named in extras}
    if len(found) > 1:
        raise SettingError(
            f"extras {name!r} of one batch have the shapes {', '.join(sorted(map(str, found)))}, and None is missing. "
            "Return tensors of one shape for all clips."
        )
    return torch.stack([named[name] for named in extras])
