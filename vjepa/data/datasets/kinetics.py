"""Builders of Kinetics-400, 600, 700 and their union, K710."""

from __future__ import annotations

from pathlib import Path

from vjepa.data.datasets.base import Annotated, AnnotatedClip, Sources, number, read_table, split_of
from vjepa.data.manifests.rows import ManifestError

SPLIT_FILES = {
    "train": ("train.csv", "train.txt"),
    "val": ("val.csv", "validate.csv", "validation.csv", "val.txt", "validate.txt"),
    "test": ("test.csv", "test.txt"),
}
RELEASES = {"k400": ("k400", "kinetics400"), "k600": ("k600", "kinetics600"), "k700": ("k700", "kinetics700")}


def kinetics(sources: Sources) -> Annotated:
    """Read `train.csv`, `val.csv` and `test.csv` with `label,youtube_id,time_start,time_end,split`.

    Clips are files `<youtube_id>_<start>_<end>.mp4`, both in seconds with six digits, in folders of any kind (one per
    split, one per class). The group is the YouTube id. Test rows of some releases have no label.
    """
    return Annotated(_clips(sources.annotations))


def kinetics710(sources: Sources) -> Annotated:
    """Read the union of Kinetics-400, 600 and 700 from folders `k400`, `k600` and `k700` of their annotations.

    Each spelling of a class is one class; published lists of 710 merge spellings, so the count may differ by a few.
    A training clip whose YouTube id is in a validation or test split of any of the three is excluded. A repeated clip
    is used once. The report counts both.
    """
    folder = sources.annotations
    clips: list[AnnotatedClip] = []
    for release, names in RELEASES.items():
        inside = next((folder / name for name in names if (folder / name).is_dir()), None)
        if inside is None:
            raise ManifestError(
                folder,
                0,
                f"no folder {' or '.join(names)} with the annotation of {release}. Put all three in one folder",
            )
        clips += _clips(inside)
    held_out = {clip.group for clip in clips if clip.split != "train"}
    kept: dict[tuple[str, str], AnnotatedClip] = {}
    num_held_out = 0
    for clip in clips:
        if clip.split == "train" and clip.group in held_out:
            num_held_out += 1
        else:
            kept.setdefault((clip.split, clip.file), clip)
    repeated = len(clips) - num_held_out - len(kept)
    notes = {"num_train_left_out_as_held_out": num_held_out, "num_repeated": repeated}
    return Annotated(list(kept.values()), notes=notes)


def _clips(annotations: Path) -> list[AnnotatedClip]:
    clips = []
    for file in _files(annotations):
        for line, row in read_table(file, ("youtube_id", "time_start", "time_end")):
            start, end = (int(number(file, line, name, row[name])) for name in ("time_start", "time_end"))
            split = split_of(file, line, row.get("split", "") or file.stem)
            name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
            clips.append(AnnotatedClip(split, name, row.get("label", ""), row["youtube_id"]))
    return clips


def _files(annotations: Path) -> list[Path]:
    """Return the annotation files of the existing splits, in the folder or in its folder `annotations`."""
    if annotations.is_file():
        return [annotations]
    for folder in (annotations / "annotations", annotations):
        found = [
            next((folder / n for n in names if (folder / n).is_file()), None)
            for names in SPLIT_FILES.values()
        ]
        if files := [file for file in found if file is not None]:
            return files
    raise ManifestError(
        annotations,
        0,
        f"none of {', '.join(name for names in SPLIT_FILES.values() for name in names)} here or in annotations/. "
        "Give the folder that holds them: --annotations DIR",
    )
