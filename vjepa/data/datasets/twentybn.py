"""Builders of TwentyBN's crowd-acted data sets: Something-Something v2 and Jester."""

from __future__ import annotations

from vjepa.data.datasets.base import (
    SPLITS,
    Annotated,
    AnnotatedClip,
    Sources,
    find_annotation,
    need_annotation,
    need_keys,
    read_json,
    read_lines,
)
from vjepa.data.manifests.rows import ManifestError


def something(sources: Sources) -> Annotated:
    """Read `something-something-v2-train.json` (or `train.json`) and so on: a list of `{id, template}`.

    The label is the template without its square brackets; `labels.json` fixes the order of the classes. The test
    split has no labels. Clips are `<id>.webm`; the group is the id.
    """
    clips: list[AnnotatedClip] = []
    for name in ("train", "validation", "test"):
        names = (f"something-something-v2-{name}.json", f"{name}.json")
        find = find_annotation if name == "test" else need_annotation
        file = find(sources.annotations, names)
        if file is None:
            continue
        for i, entry in enumerate(read_json(file)):
            need_keys(file, f"entry {i}", entry, ("id",) if name == "test" else ("id", "template"))
            label = _without_brackets(entry.get("template", ""))
            clips.append(AnnotatedClip(SPLITS[name], str(entry["id"]), label, str(entry["id"])))
    names = ("something-something-v2-labels.json", "labels.json")
    listed = find_annotation(sources.annotations, names)
    labels = read_json(listed) if listed else {}
    ordered = sorted(labels, key=lambda label: int(labels[label]))
    return Annotated(clips, tuple(map(_without_brackets, ordered)))


def _without_brackets(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def jester(sources: Sources) -> Annotated:
    """Read `jester-v1-train.csv` and so on: lines `id;label`, in the test split `id` alone.

    Clips are folders `<id>` of JPEG frames (12 per second); `jester-v1-labels.csv` fixes the order of the classes.
    The group is the id, as the actors are not known.
    """
    clips: list[AnnotatedClip] = []
    for name in ("train", "validation", "test"):
        find = find_annotation if name == "test" else need_annotation
        file = find(sources.annotations, (f"jester-v1-{name}.csv",))
        for line, text in read_lines(file) if file else ():
            clip, separator, label = text.partition(";")
            if not separator and name != "test":
                raise ManifestError(file or "", line, f"{text!r} is not `id;label`. Correct the line")
            clips.append(AnnotatedClip(SPLITS[name], clip, label, clip))
    listed = find_annotation(sources.annotations, ("jester-v1-labels.csv",))
    return Annotated(clips, tuple(text for _, text in read_lines(listed)) if listed else ())
