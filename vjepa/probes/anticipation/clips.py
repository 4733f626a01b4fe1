"""The clips from which actions are foretold: frames before an action, by its annotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from vjepa.data.decoders.limited import DEFAULT_SECONDS, opener
from vjepa.data.decoders.opening import open_video
from vjepa.data.loading.order import SampleKey
from vjepa.data.transforms.augment import ProbeTrainTransform
from vjepa.data.transforms.video import EvalTransform
from vjepa.errors import DecodeError
from vjepa.probes.anticipation.ek100 import anticipation_indices
from vjepa.probes.anticipation.ek100_annotations import EpicSplit
from vjepa.probes.base import ProbeError
from vjepa.types import ClipFailure

TRAIN_SECONDS, TRAIN_POINT = (0.25, 1.75), (0.0, 0.25)  # V-JEPA 2 draws both uniformly


@dataclass(frozen=True)
class AnticipationSample:
    """One clip, `seconds` before an action of row `index`; or the `failure` in its place."""

    index: int
    seconds: float
    video: Float[Tensor, "3 t h w"] | None = None
    failure: ClipFailure | None = None


@dataclass(frozen=True)
class AnticipationBatch:
    """Clips that could be read, and those that could not."""

    video: Float[Tensor, "b 3 t h w"]
    seconds: Float[Tensor, "b"]
    index: Int[Tensor, "b"]
    failures: tuple[ClipFailure, ...]


@dataclass(frozen=True)
class ForetellingCut:
    """How clips are cut: `num_frames` at `fps`, ending `seconds` (in a test) before the action.

    `relative_to` as in `anticipation_indices`; `size` of the view; `decoder` reads the videos.
    """

    num_frames: int = 32
    fps: float = 8.0
    seconds: float = 1.0
    relative_to: Literal["start", "stop"] = "stop"
    size: int | tuple[int, int] = 224
    decoder: str = "auto"


class AnticipationClips(Dataset[AnticipationSample]):
    """The clips of a split: each a function of (seed, epoch, row).

    Args:
        split: The actions and their videos.
        cut: How clips are cut.
        training: Draw time and view by chance, as published; else the fixed ones of a test.
        seed: Of what is drawn.
    """

    def __init__(self, split: EpicSplit, cut: ForetellingCut, *, training: bool, seed: int = 0) -> None:
        self.split, self.cut, self.training, self.seed = split, cut, training, seed
        self._opener = opener(cut.decoder, DEFAULT_SECONDS)
        self._random = ProbeTrainTransform(size=cut.size, flip=0.5)
        self._plain = EvalTransform(size=cut.size)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: SampleKey | int) -> AnticipationSample:
        epoch, index = (0, key) if isinstance(key, int) else (key.epoch, key.index)
        generator = np.random.default_rng([self.seed, epoch, index])
        seconds, point = self.cut.seconds, 0.0
        if self.training:
            seconds, point = generator.uniform(*TRAIN_SECONDS), generator.uniform(*TRAIN_POINT)
        path = self.split.videos[index]
        try:
            frames = self._frames(path, index, seconds, point)
        except (DecodeError, ProbeError) as error:
            reason = error.reason if isinstance(error, DecodeError) else str(error)
            return AnticipationSample(index, seconds, failure=ClipFailure(path=path, reason=reason))
        video = self._random(frames, generator) if self.training else self._plain(frames)
        return AnticipationSample(index, seconds, video=video)

    def _frames(self, path: str, index: int, seconds: float, point: float) -> Tensor:
        with open_video(self._opener, path) as video:
            chosen = anticipation_indices(
                self.split.actions[index],
                seconds=seconds,
                point=point,
                fps_video=video.fps,
                num_frames=self.cut.num_frames,
                fps=self.cut.fps,
                relative_to=self.cut.relative_to,
            )
            if chosen[-1] >= video.num_frames:  # published: such a clip is skipped
                raise ProbeError(
                    f"the clip ends at frame {chosen[-1]}, the video has {video.num_frames}. Check start_frame "
                    "and stop_frame against the video's rate."
                )
            needed, place = np.unique(
                chosen, return_inverse=True
            )  # what begins before the video repeats frame 0
            return video.frames_at(needed.tolist())[torch.from_numpy(place)]


def collate_anticipation(samples: Sequence[AnticipationSample]) -> AnticipationBatch:
    """A batch of what could be read, and the list of the rest."""
    good = [(s, s.video) for s in samples if s.video is not None]
    return AnticipationBatch(
        video=torch.stack([video for _, video in good]) if good else torch.empty(0, 3, 0, 0, 0),
        seconds=torch.tensor([s.seconds for s, _ in good], dtype=torch.float32),
        index=torch.tensor([s.index for s, _ in good], dtype=torch.int64),
        failures=tuple(s.failure for s in samples if s.failure is not None),
    )
