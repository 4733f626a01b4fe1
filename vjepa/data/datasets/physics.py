"""Builders of benchmarks of intuitive physics: IntPhys, GRASP and InfLevel; videos of one `pair` are compared."""

from __future__ import annotations

from pathlib import Path

from vjepa.data.datasets.base import (
    Annotated,
    AnnotatedClip,
    Sources,
    need_annotation,
    need_keys,
    read_json,
    read_table,
)
from vjepa.data.manifests.folders import listing
from vjepa.data.manifests.rows import ManifestError

POSSIBLE = ("impossible", "possible")
INFLEVEL = ("continuity", "solidity", "gravity")


def intphys(sources: Sources) -> Annotated:
    """Read `dev/O1/01/1/scene/*.png` with `dev/O1/01/1/status.json`, whose `header.is_possible` is the label.

    A scene's four videos, two possible and two not, are one `pair`: their frames, not the annotation, decide
    which of them to compare. `dev` becomes val.csv, `test` (without status) test.csv. The root may be the
    folder of `dev` and `test`, or one that has O1, O2 and O3 itself. The training set is not read: all of it is
    possible, and it opens as a folder of frame folders.
    """
    places = [
        (name, split) for name, split in (("dev", "val"), ("test", "test")) if (sources.root / name).is_dir()
    ]
    clips = [
        clip
        for name, split in places or [("", "val")]
        for block in listing(sources.root / name).folders
        if block in ("O1", "O2", "O3")
        for clip in _scenes(sources.root, Path(name) / block, split)
    ]
    if not clips:
        raise ManifestError(
            sources.root,
            0,
            "no scenes such as dev/O1/01/1/scene. Give the folder of dev/, or of O1/, O2/ and O3/",
        )
    return Annotated(clips, POSSIBLE)


def _scenes(root: Path, block: Path, split: str) -> list[AnnotatedClip]:
    clips = []
    for scene in listing(root / block).folders:
        for video in listing(root / block / scene).folders:
            below = block / scene / video
            status, label = root / below / "status.json", ""
            if split == "val":
                if not status.is_file():
                    raise ManifestError(status, 0, "no such file; it has the label. Unpack it too")
                found = read_json(status)
                need_keys(status, "the status", found, ("header",))
                need_keys(status, "the header", found["header"], ("is_possible",))
                label = POSSIBLE[bool(found["header"]["is_possible"])]
            pair = (block / scene).as_posix()
            extra = (("property", block.name),)
            clips.append(
                AnnotatedClip(split, (below / "scene").as_posix(), label, pair, pair=pair, extra=extra)
            )
    return clips


def grasp(sources: Sources) -> Annotated:
    """List GRASP's second level: `P_<Property>/<name>.mp4` is possible, `IP_<Property>/<name>.mp4` is not.

    Two videos of one name are a pair. A property without an impossible folder has no pairs. The folders are in the
    root or one folder down.
    """
    folders = {
        name: below / name
        for below in (Path(), *map(Path, listing(sources.root).folders))
        for name in listing(sources.root / below).folders
        if name.startswith(("P_", "IP_"))
    }
    if not folders:
        raise ManifestError(
            sources.root,
            0,
            "no folders P_<Property> and IP_<Property> here or one folder down. Give their folder",
        )
    clips = []
    for topic in sorted({name.partition("_")[2] for name in folders}):
        both = [
            (label, folders.get(f"{prefix}_{topic}"))
            for prefix, label in (("P", "possible"), ("IP", "impossible"))
        ]
        there = [(label, folder) for label, folder in both if folder is not None]
        videos = sorted({video for _, folder in there for video in listing(sources.root / folder).videos})
        for video in videos:
            pair = f"{topic}/{Path(video).stem}" if len(there) == 2 else ""
            extra = (("property", topic),)
            clips += [
                AnnotatedClip(
                    "val", (folder / video).as_posix(), label, pair or topic, pair=pair, extra=extra
                )
                for label, folder in there
            ]
    return Annotated(clips, POSSIBLE)


def inflevel(sources: Sources) -> Annotated:
    """Read the pair lists `continuity.csv`, `solidity.csv` and `gravity.csv`.

    Each line has `vid1_path` and `vid2_path`, and in `vid1_label` and `vid2_label` which is possible. These lists come
    with the published evaluation of V-JEPA; the code was not tested with InfLevel's own archive. There is one row per
    video and pair. The columns `vid1_end_priming_2` and `vid2_end_priming_2`, the last frame of the priming, become a
    column `end_priming_frame`. It stays in frames, as the time of a frame is only in the video.
    """
    clips = []
    for topic in INFLEVEL:
        file = need_annotation(sources.annotations, (f"{topic}.csv",))
        for line, row in read_table(file, ("vid1_path", "vid2_path", "vid1_label", "vid2_label")):
            labels = (row["vid1_label"], row["vid2_label"])
            if set(labels) != set(POSSIBLE):
                raise ManifestError(
                    file,
                    line,
                    f"labels {' and '.join(labels)}, not one possible and one impossible. Correct the line",
                )
            for which, label in zip(("vid1", "vid2"), labels, strict=True):
                extra = (("property", topic), ("end_priming_frame", row.get(f"{which}_end_priming_2", "")))
                pair = f"{topic}/{line - 1}"
                path = Path(row[f"{which}_path"])
                below = path.as_posix() if len(path.parts) > 1 else path.stem
                clips.append(AnnotatedClip("val", below, label, pair, pair=pair, extra=extra))
    return Annotated(clips, POSSIBLE)
