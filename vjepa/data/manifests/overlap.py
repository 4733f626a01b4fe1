"""Clips that are in training and in validation."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Sequence

from vjepa.data.manifests.rows import Manifest, ManifestRow
from vjepa.data.remote import is_url, member_of

log = logging.getLogger(__name__)

MAX_NAMED = 3  # files in the warning; the rest is counted


def warn_of_overlap(train: Sequence[Manifest], val: Manifest) -> None:
    """Log a warning if validation clips share a part of a video, or a group, with training clips.

    Files of one name are compared by their place, with links followed. `vjepa data check --against` compares
    their frames too.
    """
    found = overlapping(train, val)
    if found:
        named = ", ".join(dict.fromkeys(row.path for row in found[:MAX_NAMED]))
        log.warning(
            "%d of %d validation clips (%s%s) are in the training data too, or of a group that is: accuracies say "
            "little about new videos. Give other validation clips; `vjepa data check VAL --against TRAIN` lists them",
            len(found),
            len(val),
            named,
            ", ..." if len(found) > MAX_NAMED else "",
        )


def overlapping(train: Sequence[Manifest], val: Manifest) -> list[ManifestRow]:
    """Return the rows of `val` that share seconds of a video, or a group, with a row of `train`."""
    parts: dict[str, list[tuple[float, float]]] = defaultdict(list)
    groups: set[str] = set()
    places = {row.path: _place(row.path) for row in val.rows}
    names = {
        os.path.basename(path) for path in places
    }  # a million look-ups on a network disk would take minutes
    for manifest in train:
        for row in manifest.rows:
            if row.group:
                groups.add(row.group)
            if os.path.basename(row.path) in names:
                parts[_place(row.path)].append(_seconds(row))
    return [
        row
        for row in val.rows
        if row.group in groups or _overlaps(_seconds(row), parts.get(places[row.path], ()))
    ]


def _place(path: str) -> str:
    """Return where a video lies, whatever links lead to it."""
    return path if is_url(path) or member_of(path) is not None else os.path.realpath(path)


def _seconds(row: ManifestRow) -> tuple[float, float]:
    return row.start or 0.0, float("inf") if row.end is None else row.end


def _overlaps(part: tuple[float, float], others: Sequence[tuple[float, float]]) -> bool:
    return any(start < part[1] and part[0] < end for start, end in others)
