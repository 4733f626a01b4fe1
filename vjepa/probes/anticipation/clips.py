"""The clips of the anticipation task: frames before an action, by its annotation."""

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
from vjepa.features.clip_spec import ClipSpec
from vjepa.probes.anticipation.ek100_annotations import EpicSplit, anticipation_indices
from vjepa.probes.base import ProbeError
from vjepa.types import ClipFailure

TRAIN_SECONDS, TRAIN_POINT = (0.25, 1.75), (0.0, 0.25)  # V-JEPA 2 draws both uniformly


@dataclass(frozen=True)
class AnticipationSample:
    """One clip, `seconds` before the action of row `index`; or the `failure` in its place."""

    index: int
    seconds: float
    video: Float[Tensor, "3 t h w"] | None = None
    failure: ClipFailure | None = None


@dataclass(frozen=True)
class AnticipationBatch:
    """Clips that could be read, and the failures of the others."""

    video: Float[Tensor, "b 3 t h w"]
    seconds: Float[Tensor, "b"]
    index: Int[Tensor, "b"]
    failures: tuple[ClipFailure, ...]


@dataclass(frozen=True)
class AnticipationTask:
    """How clips are cut before an action.

    `spec` gives their frames, rate and size. In a test a clip ends `seconds` before the action; `relative_to` is
    explained in `anticipation_indices`.
    """

    spec: ClipSpec
    seconds: float = 1.0
    relative_to: Literal["start", "stop"] = "stop"
    decoder: str = "auto"


class AnticipationClips(Dataset[AnticipationSample]):
    """The clips of a split: each is a function of (seed, epoch, row).

    `training` draws time and view at random, as published.
    """

    def __init__(self, split: EpicSplit, task: AnticipationTask, *, training: bool, seed: int = 0) -> None:
        self.split, self.task, self.training, self.seed = split, task, training, seed
        self._opener = opener(task.decoder, DEFAULT_SECONDS)
        self._random = ProbeTrainTransform(size=task.spec.size, flip=0.5)
        self._plain = EvalTransform(size=task.spec.size)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: SampleKey | int) -> AnticipationSample:
        epoch, index = (0, key) if isinstance(key, int) else (key.epoch, key.index)
        generator = np.random.default_rng([self.seed, epoch, index])
        seconds, point = self.task.seconds, 0.0
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
        spec = self.task.spec
        assert spec.fps is not None
        with open_video(self._opener, path) as video:
            chosen = anticipation_indices(
                self.split.actions[index],
                seconds=seconds,
                point=point,
                fps_video=video.fps,
                num_frames=spec.num_frames,
                fps=spec.fps,
                relative_to=self.task.relative_to,
            )
            if chosen[-1] >= video.num_frames:  # published: such a clip is skipped
                raise ProbeError(
                    f"the clip ends at frame {chosen[-1]}, the video has {video.num_frames}. Check start_frame "
                    "and stop_frame against the video's rate."
                )
            # a clip that begins before the video repeats frame 0
            needed, place = np.unique(chosen, return_inverse=True)
            return video.frames_at(needed.tolist())[torch.from_numpy(place)]


def collate_anticipation(samples: Sequence[AnticipationSample]) -> AnticipationBatch:
    """Return a batch of the clips that could be read, with the failures of the rest."""
    good = [(s, s.video) for s in samples if s.video is not None]
    return AnticipationBatch(
        video=torch.stack([video for _, video in good]) if good else torch.empty(0, 3, 0, 0, 0),
        seconds=torch.tensor([s.seconds for s, _ in good], dtype=torch.float32),
        index=torch.tensor([s.index for s, _ in good], dtype=torch.int64),
        failures=tuple(s.failure for s in samples if s.failure is not None),
    )
