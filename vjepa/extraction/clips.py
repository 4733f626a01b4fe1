"""The clips that features are taken of: one from the middle of each video, with its place in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.utils.data import Dataset

from vjepa.data import (
    ClipSampler,
    DecodeError,
    EvalTransform,
    Manifest,
    ShortVideoError,
    open_video,
)
from vjepa.data.decoders.limited import DEFAULT_SECONDS, opener
from vjepa.types import ClipFailure


@dataclass(frozen=True)
class TimedClip:
    """A clip of row `index`: `video` and the `seconds` of its first and last frame, or the `failure`."""

    index: int
    video: Float[Tensor, "3 t h w"] | None = None
    seconds: tuple[float, float] = (0.0, 0.0)
    failure: ClipFailure | None = None


@dataclass(frozen=True)
class TimedBatch:
    """The readable clips of a batch: `video` (B, 3, T, H, W), `index` (B,), `seconds` (B, 2); the others."""

    video: Float[Tensor, "b 3 t h w"]
    index: Int[Tensor, "b"]
    seconds: Float64[Tensor, "b 2"]
    failures: tuple[ClipFailure, ...]


class TimedClips(Dataset[TimedClip]):
    """One clip a row of a manifest; what cannot be read comes back as a failure.

    Args:
        manifest: Which videos.
        sampler: Which frames of a video; it must not draw.
        transform: From frames to the encoder's input.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a `Decoder`.
    """

    def __init__(
        self, manifest: Manifest, *, sampler: ClipSampler, transform: EvalTransform, decoder: str = "auto"
    ) -> None:
        assert sampler.position != "random"
        self.manifest, self.sampler, self.transform = manifest, sampler, transform
        self._opener = opener(decoder, DEFAULT_SECONDS)

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> TimedClip:
        row = self.manifest.rows[index]
        try:
            with open_video(self._opener, row.path) as video:
                shown = video.timestamps
                chosen = self.sampler.sample(shown, np.random.default_rng(0), row.start, row.end)
                frames = video.frames_at(chosen.tolist())
        except (DecodeError, ShortVideoError) as error:
            reason = error.reason if isinstance(error, DecodeError) else str(error)
            return TimedClip(index=index, failure=ClipFailure(path=row.path, reason=reason))
        seconds = (float(shown[chosen[0]]), float(shown[chosen[-1]]))
        return TimedClip(index=index, video=self.transform(frames), seconds=seconds)


def collate_timed(clips: Sequence[TimedClip]) -> TimedBatch:
    """A batch of the clips that could be read, and the list of the others."""
    good = [clip for clip in clips if clip.failure is None]
    videos = [clip.video for clip in good if clip.video is not None]
    return TimedBatch(
        video=torch.stack(videos) if videos else torch.empty(0, 3, 0, 0, 0),
        index=torch.tensor([clip.index for clip in good], dtype=torch.int64),
        seconds=torch.tensor([clip.seconds for clip in good], dtype=torch.float64).reshape(-1, 2),
        failures=tuple(clip.failure for clip in clips if clip.failure is not None),
    )
