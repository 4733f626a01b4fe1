"""The labelled videos of a probe: two manifests, or one that is split."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vjepa.data.manifests.overlap import warn_of_overlap
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import Manifest, Rows
from vjepa.probes.base import ProbeError
from vjepa.probes.fitting.splits import train_and_test_rows


@dataclass(frozen=True)
class LabelledVideos:
    """The videos to train and test on.

    Args:
        train: Manifest or folder of labelled videos to train on.
        val: Manifest or folder of labelled videos to test on; never used to choose anything.
        folder: In place of train and val: one folder of class folders, or one manifest, to be split in two by class,
            with each group of its column `group` on one side.
        val_share: Share of each class of the folder to test on.
        label: Column of the manifests that holds the label.
        root: Folder that relative paths in the manifests start from (default: the manifest's own).
        num_per_class: Train with this many clips of each class (default: all).
    """

    train: str | None = None
    val: str | None = None
    folder: str | None = None
    val_share: float = 0.25
    label: str = "label"
    root: str | None = None
    num_per_class: int | None = None

    def manifests(self, *, seed: int) -> tuple[Manifest, Manifest]:
        """Return the training and the test manifest, both with the class ids of the first.

        Raises:
            ProbeError: If neither or both are given, or there are no labels.
        """
        if self.folder is not None and (self.train or self.val):
            raise ProbeError("--folder beside --train or --val: give the folder alone, or the two.")
        source = self.folder or self.train
        if source is None or (self.folder is None and self.val is None):
            raise ProbeError(
                "no videos to train and test on: give --train and --val, or --folder to be split."
            )
        first = read_manifest(source, root=self.root, label_column=self.label)
        if not first.label_names:
            raise ProbeError(
                f"{source}: {first.describe()}. A probe needs labels: name their column with --label, or give a "
                "folder of class folders."
            )
        if self.val is None:
            return self._split(first, seed)
        second = self._test(self.val, first)
        warn_of_overlap([first], second)
        return first, second

    def _test(self, val: str, first: Manifest) -> Manifest:
        second = read_manifest(val, root=self.root, label_column=self.label, label_names=first.label_names)
        if all(row.label < 0 for row in second.rows):
            raise ProbeError(
                f"{val}: no validation clip has a label ({second.describe()}). Name the column of both manifests with "
                "--label, or give a folder of class folders."
            )
        return second

    def _split(self, manifest: Manifest, seed: int) -> tuple[Manifest, Manifest]:
        labels, groups = zip(*((row.label, row.group) for row in manifest.rows), strict=True)
        sides = train_and_test_rows(labels, groups, val_share=self.val_share, seed=seed)
        train, test = (Rows.of(manifest.rows[i] for i in rows) for rows in sides)
        return (
            replace(manifest, rows=train, kind=f"training part of {manifest.kind}"),
            replace(manifest, rows=test, kind=f"test part of {manifest.kind}"),
        )
