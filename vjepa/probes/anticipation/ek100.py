"""Annotations of EPIC-KITCHENS-100 as the released anticipation probes know them (spec 6.5): ids, clips, recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from numpy import ndarray
from torch import Tensor

from vjepa.probes.base import ProbeError


class Action(NamedTuple):
    """A verb and a noun, by their numbers in the annotation, from a start to a stop frame."""

    verb: int
    noun: int
    start_frame: int
    stop_frame: int


@dataclass(frozen=True)
class ActionIds:
    """Class ids of verbs, nouns and pairs of both, as a released probe numbers them.

    They follow the order in which CPython (3.8 or later) goes through a set of the training annotations, so the same
    training annotations in the same order are needed to use a released probe.
    """

    verbs: dict[int, int]
    nouns: dict[int, int]
    actions: dict[tuple[int, int], int]

    @classmethod
    def of(cls, train: Sequence[Action]) -> ActionIds:
        """Ids of the training annotations.

        >>> ActionIds.of([Action(9, 8, 0, 1), Action(8, 1, 0, 1)]).verbs
        {8: 0, 9: 1}
        """
        if not train:
            raise ProbeError(
                "no training annotation: class ids are numbered by them. Give EPIC_100_train.csv."
            )
        return cls(
            verbs={verb: i for i, verb in enumerate({a.verb for a in train})},
            nouns={noun: i for i, noun in enumerate({a.noun for a in train})},
            actions={pair: i for i, pair in enumerate({(a.verb, a.noun) for a in train})},
        )

    def known(self, annotations: Sequence[Action]) -> list[Action]:
        """Annotations whose pair occurs in training; the others are dropped from a test, as published."""
        return [a for a in annotations if (a.verb, a.noun) in self.actions]

    def labels(self, annotations: Sequence[Action]) -> dict[str, Int[Tensor, "n"]]:
        """Class ids of known annotations, by the names that `anticipation_loss` takes."""
        return {
            "verb": torch.tensor([self.verbs[a.verb] for a in annotations]),
            "noun": torch.tensor([self.nouns[a.noun] for a in annotations]),
            "action": torch.tensor([self.actions[a.verb, a.noun] for a in annotations]),
        }


def anticipation_indices(
    action: Action,
    *,
    seconds: float,
    point: float,
    fps_video: float,
    num_frames: int = 32,
    fps: float = 8.0,
    relative_to: Literal["start", "stop"] = "stop",
) -> Int64[ndarray, "t"]:
    """Frames of the clip from which an action is to be foretold, the last of them `seconds` before it.

    >>> anticipation_indices(Action(0, 0, 0, 240), seconds=1.0, point=0.0, fps_video=60.0, num_frames=4).tolist()
    [152, 159, 166, 173]

    Args:
        action: The action.
        seconds: Time of anticipation: 1 in a test, drawn from 0.25 to 1.75 in training.
        point: Where in the action it is measured from, 0 to 1: 0 in a test, drawn from 0 to 0.25 in training.
        fps_video: Frames of the video a second.
        num_frames: Frames of the clip.
        fps: Frames of the clip a second.
        relative_to: "stop" measures a point of 0 from the end of the action, as the published code does and its
            probes were trained; "start" is what its documentation says.

    Raises:
        ProbeError: If the video is slower than the clip.
    """
    step = int(fps_video / fps)
    if step < 1:
        raise ProbeError(f"{fps_video:g} fps, slower than the {fps:g} fps of the clip. Lower fps.")
    ends = (action.stop_frame, action.start_frame)
    zero, one = ends if relative_to == "stop" else ends[::-1]
    stop = int(one * point + (1 - point) * zero - int(seconds * fps_video))
    return np.maximum(stop - step * np.arange(num_frames, 0, -1, dtype=np.int64), 0)


def class_mean_recall(logits: Float[Tensor, "n classes"], labels: Int[Tensor, "n"], *, top: int = 5) -> float:
    """Mean over the classes that occur of the share of their clips with the class among the `top` scores.

    >>> class_mean_recall(torch.eye(3), torch.tensor([0, 0, 2]), top=1)
    0.75
    """
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    hit = (best == labels[:, None]).any(dim=1).double()
    return float(torch.stack([hit[labels == label].mean() for label in labels.unique()]).mean())
