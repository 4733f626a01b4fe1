"""A tree of EPIC-KITCHENS-100: the official annotation files, and the videos they speak of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vjepa.data.datasets.base import find_annotation, number, read_table
from vjepa.probes.anticipation.ek100 import Action, ActionIds
from vjepa.probes.base import ProbeError

COLUMNS = ("video_id", "start_frame", "stop_frame", "verb_class", "noun_class")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


@dataclass(frozen=True)
class EpicSplit:
    """Actions of one annotation file, in its order, and the video of each."""

    source: Path
    actions: tuple[Action, ...]
    videos: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.actions)

    def known_to(self, ids: ActionIds) -> EpicSplit:
        """The actions whose pair of verb and noun occurs in training; the others are in no published test.

        Raises:
            ProbeError: If there is none.
        """
        kept = [i for i, a in enumerate(self.actions) if (a.verb, a.noun) in ids.actions]
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
        """From `EPIC_100_verb_classes.csv` and `EPIC_100_noun_classes.csv` in a folder; else the numbers."""
        verbs, nouns = (_class_names(annotations, kind) for kind in ("verb", "noun"))
        return cls(
            verb=tuple(verbs.get(i, str(i)) for i in ids.verbs),
            noun=tuple(nouns.get(i, str(i)) for i in ids.nouns),
            action=tuple(f"{verbs.get(v, str(v))} {nouns.get(n, str(n))}" for v, n in ids.actions),
        )


def video_files(root: Path) -> dict[str, str]:
    """Video files below `root` by video id, e.g. `P01_01` of `P01/videos/P01_01.MP4`.

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
    """The actions of `EPIC_100_train.csv` or `EPIC_100_validation.csv`.

    Args:
        annotation: The file.
        videos: Video files by id; a video that is not among them is named by its id and fails when it is read.

    Raises:
        ProbeError: If the file has no action, or none of its videos is there.
        ManifestError: If it is no such annotation.
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


def labels_of(split: EpicSplit, ids: ActionIds) -> Sequence[tuple[int, int, int]]:
    """Class ids (verb, noun, action) of every action."""
    return [(ids.verbs[a.verb], ids.nouns[a.noun], ids.actions[a.verb, a.noun]) for a in split.actions]
