"""The verb `vjepa data manifest`: writes manifests of a public data set from its own annotation."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from vjepa.commands.report import Report
from vjepa.data.datasets.actions import coin, coin_steps, diving48, hmdb51, ucf101
from vjepa.data.datasets.base import Annotated, AnnotatedClip, Sources, Tree
from vjepa.data.datasets.epic import epic
from vjepa.data.datasets.imagenet import imagenet
from vjepa.data.datasets.kinetics import kinetics, kinetics710
from vjepa.data.datasets.physics import grasp, inflevel, intphys
from vjepa.data.datasets.twentybn import jester, something
from vjepa.data.manifests.rows import ManifestError
from vjepa.readers import content_of

log = logging.getLogger(__name__)

Dataset = Literal[
    "k400",
    "k600",
    "k700",
    "k710",
    "ssv2",
    "diving48",
    "jester",
    "coin",
    "coin-steps",
    "ek100",
    "in1k",
    "ucf101",
    "hmdb51",
    "intphys",
    "grasp",
    "inflevel",
]
BUILDERS: dict[str, Callable[[Sources], Annotated]] = {
    "k400": kinetics,
    "k600": kinetics,
    "k700": kinetics,
    "k710": kinetics710,
    "ssv2": something,
    "diving48": diving48,
    "jester": jester,
    "coin": coin,
    "coin-steps": coin_steps,
    "ek100": epic,
    "in1k": imagenet,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "intphys": intphys,
    "grasp": grasp,
    "inflevel": inflevel,
}
ONE_FILE = ("k400", "k600", "k700", "coin", "coin-steps")  # may be given an annotation file, not its folder
WRITTEN_COLUMNS = ("path", "label", "start", "end", "group", "pair")


class Located(NamedTuple):
    """A clip, and its path below the root if its file was found."""

    clip: AnnotatedClip
    path: str | None


def manifest_command(
    *, dataset: Dataset, root: Path, out: Path, annotations: Path | None = None, fold: Literal[1, 2, 3] = 1
) -> Report:
    """Write the manifests of a public data set from its own annotation files.

    Args:
        dataset: The data set.
        root: Folder of its videos, frame folders or images; paths in the manifests start from it.
        out: Folder for train.csv, val.csv and test.csv (those that the data set has), labels.csv and missing.csv,
            which lists the annotated clips without a file.
        annotations: Annotation file, or its folder; by default the root.
        fold: The official split to use, if there are three (ucf101, hmdb51).
    """
    for folder in (root, annotations):
        if folder is not None and not folder.exists():
            raise ManifestError(folder, 0, "no such folder. Give the one that the data set was unpacked to")
    if annotations is not None and annotations.is_file() and dataset not in ONE_FILE:
        raise ManifestError(annotations, 0, f"{dataset} has several annotation files. Give their folder")
    with content_of(annotations or root, "the official annotation"):
        annotated = BUILDERS[dataset](Sources(root, annotations or root, fold))
    tree = Tree(root, images=dataset == "in1k")
    located = [Located(clip, tree.find(clip)) for clip in annotated.clips]
    if not any(path for _, path in located):
        first = annotated.clips[0].file if annotated.clips else "no clip"
        raise ManifestError(
            root,
            0,
            f"none of the {len(located):,} annotated clips has a file below (the first: {first}). Correct --root",
        )
    labels = annotated.labels or tuple(sorted({clip.label for clip in annotated.clips if clip.label}))
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "labels.csv", ("id", "label"), list(enumerate(labels)))
    missing = [(clip.split, clip.file, clip.label) for clip, path in located if path is None]
    _write(out / "missing.csv", ("split", "file", "label"), missing)
    rows = [_split(out, split, located) for split in ("train", "val", "test")]
    rows = [row for row in rows if row["annotated"]]
    unknown = sorted(_unknown(annotated, set(labels)))
    for label in unknown:
        log.warning("label %r is not a known label", label)
    figures = {
        "dataset": dataset,
        "num_annotated": len(located),
        "num_found": len(located) - len(missing),
        "num_missing": len(missing),
        "num_labels": len(labels),
        "unknown_labels": unknown,
        "splits": {row["split"]: row for row in rows},
        **annotated.notes,
    }
    title = f"{dataset}: {figures['num_found']:,} of {len(located):,} annotated clips found; read with root {root}"
    return Report(title=title, rows=rows, figures=figures)


def _split(out: Path, split: str, located: list[Located]) -> dict[str, object]:
    """Write the manifest of one split, if it has files, and count."""
    annotated = [each for each in located if each.clip.split == split]
    found = [(clip, path) for clip, path in annotated if path is not None]
    if found:
        extra = dict.fromkeys(name for clip, _ in found for name, _ in clip.extra)
        cells = [_cells(clip, path) for clip, path in found]
        names = (*WRITTEN_COLUMNS, *extra)
        header = [name for name in names if name == "path" or any(row.get(name) for row in cells)]
        _write(out / f"{split}.csv", header, [[row.get(name, "") for name in header] for row in cells])
    return {
        "split": split,
        "annotated": len(annotated),
        "found": len(found),
        "missing": len(annotated) - len(found),
        "labels": len({clip.label for clip, _ in found if clip.label}),
    }


def _cells(clip: AnnotatedClip, path: str) -> dict[str, str]:
    start, end = (
        "" if seconds is None else f"{seconds:.3f}".rstrip("0").rstrip(".")
        for seconds in (clip.start, clip.end)
    )
    values = (path, clip.label, start, end, clip.group, clip.pair)
    return {**dict(zip(WRITTEN_COLUMNS, values, strict=True)), **dict(clip.extra)}


def _unknown(annotated: Annotated, known: set[str]) -> set[str]:
    """Return the labels that the data set's own list lacks or, without a list, those that no training clip has."""
    if not annotated.labels:
        trained = {clip.label for clip in annotated.clips if clip.split == "train"}
        known = trained or known
    return {clip.label for clip in annotated.clips if clip.label} - known


def _write(file: Path, header: object, rows: object) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(header)  # type: ignore[arg-type]
        writer.writerows(rows)  # type: ignore[arg-type]
