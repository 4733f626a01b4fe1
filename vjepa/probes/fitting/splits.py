"""Which clips train a probe and which choose its settings: functions of labels, groups and a generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vjepa.probes.base import ProbeError

HOLD_OUT_EVERY = 5  # one clip in five chooses the settings


def held_out_split(
    labels: Int[Tensor, "clips"], groups: Sequence[str], generator: torch.Generator
) -> tuple[Int[Tensor, "fit"], Int[Tensor, "held"]]:
    """Hold out a fifth of the clips: whole groups if the clips have groups, else a fifth of each class.

    Returns:
        Rows to fit on and rows held out, each ascending.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    names = sorted(set(groups))
    if len(names) > 1:
        held = _whole_groups(groups, [names[i] for i in torch.randperm(len(names), generator=generator)])
    else:
        by_class = shuffled[labels[shuffled].argsort(stable=True)]
        held = by_class[::HOLD_OUT_EVERY]
    is_held = torch.zeros(len(labels), dtype=torch.bool)
    is_held[held] = True
    return (~is_held).nonzero()[:, 0], is_held.nonzero()[:, 0]


def held_out_videos(
    labels: Int[Tensor, "clips"],
    groups: Sequence[str],
    videos: Int[Tensor, "clips"],
    generator: torch.Generator,
) -> tuple[Int[Tensor, "fit"], Int[Tensor, "held"]]:
    """Apply `held_out_split` to videos.

    Returns:
        All clips of the videos to fit on, and the first clip of each held-out video.
    """
    shown = first_views(videos)
    groups_shown = [groups[i] for i in shown.tolist()] if groups else ()
    fit, held = held_out_split(labels[shown], groups_shown, generator)
    return clips_of(shown[fit], videos), shown[held]


def _whole_groups(groups: Sequence[str], order: Sequence[str]) -> Int[Tensor, "held"]:
    """Return the clips of the first groups in `order` that make up a fifth; the last group always stays."""
    held: list[int] = []
    for name in order[:-1]:
        if len(held) * HOLD_OUT_EVERY >= len(groups):
            break
        held += [i for i, group in enumerate(groups) if group == name]
    return torch.tensor(held)


def first_views(videos: Int[Tensor, "clips"]) -> Int[Tensor, "videos"]:
    """Return the position of the first clip of each video, ascending.

    >>> first_views(torch.tensor([4, 7, 4, 7])).tolist()
    [0, 1]
    """
    seen: dict[int, int] = {}
    for position, video in enumerate(videos.tolist()):
        seen.setdefault(video, position)
    return torch.tensor(list(seen.values()), dtype=torch.int64)


def clips_of(some: Int[Tensor, "some"], videos: Int[Tensor, "clips"]) -> Int[Tensor, "chosen"]:
    """Return all clips of the videos that the clips `some` show, ascending.

    >>> clips_of(torch.tensor([1]), torch.tensor([4, 7, 4, 7])).tolist()
    [1, 3]
    """
    return torch.isin(videos, videos[some]).nonzero()[:, 0]


def few_per_class(
    labels: Int[Tensor, "clips"], num_per_class: int, generator: torch.Generator
) -> Int[Tensor, "few"]:
    """Draw at most `num_per_class` clips of each class; return their rows, ascending.

    >>> few_per_class(torch.tensor([0, 1, 0, 0]), 1, torch.Generator().manual_seed(0)).shape
    torch.Size([2])
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    chosen = [shuffled[labels[shuffled] == label][:num_per_class] for label in labels.unique()]
    return torch.cat(chosen).sort().values


def labelled_clips(
    labels: Int[Tensor, "clips"],
    videos: Int[Tensor, "clips"],
    num_per_class: int | None,
    generator: torch.Generator,
) -> Int[Tensor, "chosen"]:
    """Return the clips with a label, ascending: of all videos, or of `num_per_class` drawn videos per class."""
    kept = (labels >= 0).nonzero()[:, 0]
    if num_per_class is None:
        return kept
    shown = kept[first_views(videos[kept])]
    return clips_of(shown[few_per_class(labels[shown], num_per_class, generator)], videos)


def train_and_test_rows(
    labels: Sequence[int], groups: Sequence[str], *, val_share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Return rows to train on and rows to test on: nearly the same share of every class, and no group on both sides.

    Rows without a label are on neither side; a row without a group is its own group. Every class keeps a row to
    train on.

    >>> known, test = train_and_test_rows([0] * 4 + [1] * 4, [""] * 8, val_share=0.25, seed=0)
    >>> len(test), sorted([0] * 4 + [1] * 4)[test[0]] != [0, 0, 0, 0, 1, 1, 1, 1][test[1]]
    (2, True)

    Raises:
        ProbeError: If the share is not between 0 and 1, or nothing can be held back.
    """
    if not 0 < val_share < 1:
        raise ProbeError(f"val_share {val_share:g}: give a share between 0 and 1, for example 0.25.")
    members: dict[tuple[str, int], list[int]] = {}
    for row, (label, group) in enumerate(zip(labels, groups, strict=True)):
        if label >= 0:
            members.setdefault((group, -1) if group else ("", row), []).append(row)
    total = Counter(labels[row] for rows in members.values() for row in rows)
    left, wanted = total.copy(), {label: count * val_share for label, count in total.items()}
    chosen: list[int] = []
    keys = list(members)
    for i in np.random.default_rng(seed).permutation(len(keys)).tolist():
        rows = members[keys[i]]
        inside = Counter(labels[row] for row in rows)
        nearer = sum(abs(wanted[c]) - abs(wanted[c] - n) for c, n in inside.items())
        if nearer > 0 and all(left[c] > n for c, n in inside.items()):
            chosen += rows
            for c, n in inside.items():
                wanted[c] -= n
                left[c] -= n
    if not chosen:
        raise ProbeError(
            f"{len(members)} groups of {len(total)} classes: none can be spared for the test. Give more videos, "
            "or raise --val_share."
        )
    tested = set(chosen)
    return sorted(row for rows in members.values() for row in rows if row not in tested), sorted(chosen)
