"""Builder of ImageNet-1k."""

from __future__ import annotations

from pathlib import Path

from vjepa.data.datasets.base import (
    Annotated,
    AnnotatedClip,
    Sources,
    find_annotation,
    read_lines,
    read_table,
)
from vjepa.data.manifests.folders import listing
from vjepa.data.manifests.rows import ManifestError


def imagenet(sources: Sources) -> Annotated:
    """List the images in `train/<wnid>/` and in `val/<wnid>/`, or directly in `val/` with `LOC_val_solution.csv`.

    `train` and `val` are in the root or in its `ILSVRC/Data/CLS-LOC`, as in the Kaggle archive. The label is the
    wnid. If `LOC_synset_mapping.txt` (`n01440764 tench, Tinca tinca`) exists, it names the classes in a column
    `name`, and a folder that it does not list is an unknown label. The development kit's
    `ILSVRC2012_validation_ground_truth.txt` numbers classes in another order and is not read.
    """
    base = next(
        (b for b in (Path(), Path("ILSVRC/Data/CLS-LOC")) if (sources.root / b / "train").is_dir()), None
    )
    if base is None:
        raise ManifestError(
            sources.root, 0, "no train/ here nor in ILSVRC/Data/CLS-LOC/. Give the folder of both"
        )
    mapping = find_annotation(sources.annotations, ("LOC_synset_mapping.txt",))
    found = (text.partition(" ") for _, text in read_lines(mapping)) if mapping else ()
    names = {wnid: name for wnid, _, name in found}
    clips = _in_class_folders(sources.root, base, "train", names)
    if (sources.root / base / "val").is_dir():
        clips += _in_class_folders(sources.root, base, "val", names) or _solved(sources, base, names)
    return Annotated(clips, tuple(names))


def _in_class_folders(root: Path, base: Path, split: str, names: dict[str, str]) -> list[AnnotatedClip]:
    folder = root / base / split
    return [
        _clip(split, (base / split / wnid / image).as_posix(), wnid, names)
        for wnid in listing(folder).folders
        for image in listing(folder / wnid).images
    ]


def _solved(sources: Sources, base: Path, names: dict[str, str]) -> list[AnnotatedClip]:
    file = find_annotation(sources.annotations, ("LOC_val_solution.csv",))
    if file is None:
        raise ManifestError(
            sources.root / base / "val",
            0,
            "neither class folders nor LOC_val_solution.csv, which has the classes. Sort val/ into folders, or "
            "give the folder of that file: --annotations DIR",
        )
    return [
        _clip(
            "val",
            (base / "val" / f"{row['ImageId']}.JPEG").as_posix(),
            row["PredictionString"].split(" ")[0],
            names,
        )
        for _, row in read_table(file, ("ImageId", "PredictionString"))
    ]


def _clip(split: str, file: str, wnid: str, names: dict[str, str]) -> AnnotatedClip:
    return AnnotatedClip(split, file, wnid, extra=(("name", names.get(wnid, "")),) if names else ())
