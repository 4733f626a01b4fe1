"""EPIC-KITCHENS-100: the official annotation files, their videos, class ids as released probes number them, recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from numpy import ndarray
from torch import Tensor

from vjepa.data.datasets.base import find_annotation, number, read_table
from vjepa.probes.base import ProbeError

COLUMNS = ("video_id", "start_frame", "stop_frame", "verb_class", "noun_class")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
TASKS = ("verb", "noun", "action")


class Action(NamedTuple):
    """A verb and a noun, by their numbers in the annotation, from a start to a stop frame."""

    verb: int
    noun: int
    start_frame: int
    stop_frame: int


@dataclass(frozen=True)
class ActionIds:
    """Class ids of verbs, nouns and pairs of both, as a released probe numbers them.

    They follow the order in which CPython (3.8 or later) iterates over a set of the training annotations. So a released
    probe needs the same training annotations in the same order.
    """

    verbs: dict[int, int]
    nouns: dict[int, int]
    actions: dict[tuple[int, int], int]

    @classmethod
    def of(cls, train: Sequence[Action]) -> ActionIds:
        """Return the ids of the training annotations.

        >>> ActionIds.of([Action(9, 8, 0, 1), Action(8, 1, 0, 1)]).verbs
        {8: 0, 9: 1}
        """
        if not train:
            raise ProbeError("no training annotation: they number the class ids. Give EPIC_100_train.csv.")
        return cls(
            verbs={verb: i for i, verb in enumerate({a.verb for a in train})},
            nouns={noun: i for i, noun in enumerate({a.noun for a in train})},
            actions={pair: i for i, pair in enumerate({(a.verb, a.noun) for a in train})},
        )

    def known(self, annotations: Sequence[Action]) -> list[Action]:
        """Return the annotations whose pair occurs in training; a test omits the others, as published."""
        return [a for a in annotations if (a.verb, a.noun) in self.actions]

    def labels(self, annotations: Sequence[Action]) -> dict[str, Int[Tensor, "n"]]:
        """Return the class ids of known annotations, by the names that `anticipation_loss` takes."""
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
    """Return the frames of the clip that anticipates an action; the last one is `seconds` before it.

    >>> anticipation_indices(Action(0, 0, 0, 240), seconds=1.0, point=0.0, fps_video=60.0, num_frames=4).tolist()
    [152, 159, 166, 173]

    Args:
        action: The action.
        seconds: Anticipation time: 1 in a test, drawn from 0.25 to 1.75 in training.
        point: Where in the action it is measured from, 0 to 1: 0 in a test, drawn from 0 to 0.25 in training.
        fps_video: Frames of the video per second.
        num_frames: Frames of the clip.
        fps: Frames of the clip per second.
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
    """Return the recall at `top`, averaged over the classes that occur.

    >>> class_mean_recall(torch.eye(3), torch.tensor([0, 0, 2]), top=1)
    0.75
    """
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    hit = (best == labels[:, None]).any(dim=1).double()
    return float(torch.stack([hit[labels == label].mean() for label in labels.unique()]).mean())


@dataclass(frozen=True)
class EpicSplit:
    """Actions of one annotation file, in its order, and the video of each action."""

    source: Path
    actions: tuple[Action, ...]
    videos: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.actions)

    def known_to(self, ids: ActionIds) -> EpicSplit:
        """Return the actions whose pair of verb and noun occurs in training; published tests omit the others.

        Raises:
            ProbeError: If there is none.
        """
        kept = [i for i, a in enumerate(self.actions) if ids.known([a])]
        if not kept:
            raise ProbeError(
                f"no action of {self.source} occurs in the training annotations. Give the files of one release."
            )
        return EpicSplit(
            self.source, tuple(self.actions[i] for i in kept), tuple(self.videos[i] for i in kept)
        )


@dataclass(frozen=True)
class EpicNames:
    """Names of verbs, nouns and actions in the order of their class ids."""

    verb: tuple[str, ...]
    noun: tuple[str, ...]
    action: tuple[str, ...]

    @classmethod
    def of(cls, ids: ActionIds, annotations: Path) -> EpicNames:
        """Read `EPIC_100_verb_classes.csv` and `EPIC_100_noun_classes.csv` in a folder, or else use the numbers."""
        verbs, nouns = (_class_names(annotations, kind) for kind in ("verb", "noun"))
        return cls(
            verb=tuple(verbs.get(i, str(i)) for i in ids.verbs),
            noun=tuple(nouns.get(i, str(i)) for i in ids.nouns),
            action=tuple(f"{verbs.get(v, str(v))} {nouns.get(n, str(n))}" for v, n in ids.actions),
        )


def video_files(root: Path) -> dict[str, str]:
    """Return the video files below `root` by video id, such as `P01_01` of `P01/videos/P01_01.MP4`.

    Raises:
        ProbeError: If there is none.
    """
    found = {p.stem: str(p) for p in sorted(root.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES}
    if not found:
        raise ProbeError(
            f"no video below {root}. Give the folder of P01/videos/P01_01.MP4 and so on with --root."
        )
    return found


def read_split(annotation: Path, videos: dict[str, str]) -> EpicSplit:
    """Return the actions of `EPIC_100_train.csv` or `EPIC_100_validation.csv`.

    A video that `videos`, the files by id, lacks is named by its id and fails when it is read.

    Raises:
        ProbeError: If the file has no action, or none of its videos exists.
        ManifestError: If the file is not such an annotation.
    """
    actions, files = [], []
    if not annotation.is_file():
        raise ProbeError(
            f"{annotation}: no such file. Give EPIC_100_train.csv with --train, EPIC_100_validation.csv with --val."
        )
    for line, row in read_table(annotation, COLUMNS):
        start, stop, verb, noun = (int(number(annotation, line, name, row[name])) for name in COLUMNS[1:])
        actions.append(Action(verb, noun, start, stop))
        files.append(videos.get(row["video_id"], f"{row['video_id']}.MP4"))
    if not set(files) & set(videos.values()):
        raise ProbeError(
            f"{annotation}: none of its {len(set(files))} videos, like {files[0] if files else 'P01_01.MP4'}, is "
            "below --root. Give the folder of the videos."
        )
    return EpicSplit(annotation, tuple(actions), tuple(files))


def _class_names(annotations: Path, kind: str) -> dict[int, str]:
    file = find_annotation(annotations, (f"EPIC_100_{kind}_classes_v2.csv", f"EPIC_100_{kind}_classes.csv"))
    return {int(row["id"]): row["key"] for _, row in read_table(file, ("id", "key"))} if file else {}
