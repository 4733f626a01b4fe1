"""Builder of EPIC-KITCHENS-100."""

from __future__ import annotations

from pathlib import Path

from vjepa.data.datasets.base import (
    Annotated,
    AnnotatedClip,
    Sources,
    find_annotation,
    need_annotation,
    number,
    read_table,
)
from vjepa.data.manifests.rows import ManifestError

TIMES = ("start_timestamp", "stop_timestamp")


def epic(sources: Sources) -> Annotated:
    """Read `EPIC_100_train.csv`, `EPIC_100_validation.csv` and, if it exists, `EPIC_100_test_timestamps.csv`.

    Each narrated action is one row: `start` and `end` in seconds, and the label from verb and noun, which are columns
    too. `EPIC_100_verb_classes.csv` and `EPIC_100_noun_classes.csv`, or their `_v2`, name them; without these files
    the names are numbers. Videos are `<video_id>.MP4`. The group is the video, as participants are in several splits.
    """
    names = {kind: _class_names(sources.annotations, kind) for kind in ("verb", "noun")}
    clips: list[AnnotatedClip] = []
    for split, file in _files(sources.annotations).items():
        labelled = split != "test"
        classes = ("verb_class", "noun_class") if labelled else ()
        for line, row in read_table(file, ("narration_id", "participant_id", "video_id", *TIMES, *classes)):
            start, end = (_seconds(file, line, column, row[column]) for column in TIMES)
            verb, noun = (
                (names[kind].get(row[f"{kind}_class"], row[f"{kind}_class"]) for kind in ("verb", "noun"))
                if labelled
                else ("", "")
            )
            extra = {
                "verb": verb,
                "noun": noun,
                "participant": row["participant_id"],
                "id": row["narration_id"],
            }
            label = f"{verb} {noun}".strip()
            clips.append(
                AnnotatedClip(
                    split, row["video_id"], label, row["video_id"], start, end, extra=tuple(extra.items())
                )
            )
    return Annotated(clips)


def _files(annotations: Path) -> dict[str, Path]:
    files = {
        "train": need_annotation(annotations, ("EPIC_100_train.csv",)),
        "val": need_annotation(annotations, ("EPIC_100_validation.csv",)),
    }
    test = find_annotation(annotations, ("EPIC_100_test_timestamps.csv",))
    return files | ({"test": test} if test else {})


def _class_names(annotations: Path, kind: str) -> dict[str, str]:
    file = find_annotation(annotations, (f"EPIC_100_{kind}_classes_v2.csv", f"EPIC_100_{kind}_classes.csv"))
    return {row["id"]: row["key"] for _, row in read_table(file, ("id", "key"))} if file else {}


def _seconds(file: Path, line: int, column: str, text: str) -> float:
    """Parse a time like `01:02:03.45` to seconds."""
    parts = text.split(":")
    if len(parts) != 3:
        raise ManifestError(file, line, f"{column} {text!r} is not HH:MM:SS.ss. Correct the line")
    hours, minutes, seconds = (number(file, line, column, part) for part in parts)
    return round(3600 * hours + 60 * minutes + seconds, 3)
