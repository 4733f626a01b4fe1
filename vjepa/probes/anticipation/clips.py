"""The clips of the anticipation task: frames before an action, by its annotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vjepa.data.decoders.limited import DEFAULT_SECONDS, opener
from vjepa.data.decoders.opening import open_video
from vjepa.data.loading.dataset import Sample
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
class AnticipationTask:
    """How clips are cut before an action.

    `spec` gives their frames, rate and size. In a test a clip ends `seconds` before the action; `relative_to` is
    explained in `anticipation_indices`.
    """

    spec: ClipSpec
    seconds: float = 1.0
    relative_to: Literal["start", "stop"] = "stop"
    decoder: str = "auto"


class AnticipationClips(Dataset[Sample]):
    """The clips of a split: each is a function of (seed, epoch, row), with the `seconds` to its action.

    `training` draws time and view at random, as published.
    """

    def __init__(self, split: EpicSplit, task: AnticipationTask, *, training: bool, seed: int = 0) -> None:
        self.split, self.task, self.training, self.seed = split, task, training, seed
        self._opener = opener(task.decoder, DEFAULT_SECONDS)
        self._random = ProbeTrainTransform(size=task.spec.size, flip=0.5)
        self._plain = EvalTransform(size=task.spec.size)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: SampleKey | int) -> Sample:
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
            return Sample(index, -1, failure=ClipFailure(path=path, reason=reason))
        video = self._random(frames, generator) if self.training else self._plain(frames)
        return Sample(index, -1, video, extras=({"seconds": torch.tensor(seconds, dtype=torch.float32)},))

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
