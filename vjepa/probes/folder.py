"""Where the labelled videos come from: two manifests, or one that is split here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import Manifest, Rows
from vjepa.probes.base import ProbeError


def labelled_manifests(
    *,
    train: str | None,
    val: str | None,
    folder: str | None,
    val_share: float,
    root: str | None,
    label: str,
    seed: int,
) -> tuple[Manifest, Manifest]:
    """Training and test manifest, with the class ids of the first.

    Args:
        train: Manifest or folder to train on, with `val` to test on.
        val: See `train`.
        folder: In place of both: labelled videos that are split by `split_rows`.
        val_share: Share of them to test on.
        root: Folder that relative paths start from.
        label: Column of the labels.
        seed: Of the split.

    Raises:
        ProbeError: If neither or both are given, or there are no labels.
    """
    if folder is not None and (train or val):
        raise ProbeError("--folder beside --train or --val: give the folder alone, or the two.")
    if folder is None and not (train and val):
        raise ProbeError("no videos to train and test on: give --train and --val, or --folder to be split.")
    source = folder or train
    assert source is not None
    first = read_manifest(source, root=root, label_column=label)
    if not first.label_names:
        raise ProbeError(
            f"{source}: {first.describe()}. A probe needs labels: name their column with --label, or give a "
            "folder of class folders."
        )
    if folder is None:
        assert val is not None
        second = read_manifest(val, root=root, label_column=label, label_names=first.label_names)
        if all(row.label < 0 for row in second.rows):
            raise ProbeError(
                f"{val}: no validation clip has a label ({second.describe()}). Name the column of both manifests with "
                "--label, or give a folder of class folders."
            )
        return first, second
    labels = [row.label for row in first.rows]
    groups = [row.group for row in first.rows]
    known, tested = split_rows(labels, groups, val_share=val_share, seed=seed)
    return tuple(  # type: ignore[return-value]
        replace(first, rows=Rows.of(first.rows[i] for i in rows), kind=f"{kind} part of {first.kind}")
        for kind, rows in (("training", known), ("test", tested))
    )


def split_rows(
    labels: Sequence[int], groups: Sequence[str], *, val_share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Rows to train and to test on: as near as can be the same share of every class, groups in one piece.

    Rows without a label are on neither side; a row without a group is one of its own. Every class keeps a row to
    train on.

    >>> known, tested = split_rows([0] * 4 + [1] * 4, [""] * 8, val_share=0.25, seed=0)
    >>> len(tested), sorted([0] * 4 + [1] * 4)[tested[0]] != [0, 0, 0, 0, 1, 1, 1, 1][tested[1]]
    (2, True)

    Args:
        labels: Class id of each row, -1 for none.
        groups: What must not be on both sides, "" for none.
        val_share: Share of each class to test on.
        seed: Of the order in which groups are looked at.

    Raises:
        ProbeError: If the share is not between 0 and 1, or nothing can be taken.
    """
    if not 0 < val_share < 1:
        raise ProbeError(f"val_share {val_share:g}: give a share between 0 and 1, for example 0.25.")
    members: dict[tuple[str, int], list[int]] = {}
    for row, (label, group) in enumerate(zip(labels, groups, strict=True)):
        if label >= 0:
            members.setdefault((group, -1) if group else ("", row), []).append(row)
    total = Counter(labels[row] for rows in members.values() for row in rows)
    left, wanted = total.copy(), {label: count * val_share for label, count in total.items()}
    taken: list[int] = []
    keys = list(members)
    for i in np.random.default_rng(seed).permutation(len(keys)).tolist():
        rows = members[keys[i]]
        inside = Counter(labels[row] for row in rows)
        nearer = sum(abs(wanted[c]) - abs(wanted[c] - n) for c, n in inside.items())
        if nearer > 0 and all(left[c] > n for c, n in inside.items()):
            taken += rows
            for c, n in inside.items():
                wanted[c] -= n
                left[c] -= n
    if not taken:
        raise ProbeError(
            f"{len(members)} groups of {len(total)} classes: none can be spared for the test. Give more videos, "
            "or raise --val_share."
        )
    tested = set(taken)
    return sorted(row for rows in members.values() for row in rows if row not in tested), sorted(taken)
