"""Which clips train a probe, which choose its settings: functions of labels, groups and a generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

HOLD_OUT_EVERY = 5  # one clip in five chooses the settings


def held_out_split(
    labels: Int[Tensor, "clips"], groups: Sequence[str], generator: torch.Generator
) -> tuple[Int[Tensor, "fit"], Int[Tensor, "held"]]:
    """Rows to fit on and a fifth held out: whole groups where clips have groups, else a fifth of each class.

    Args:
        labels: Class ids.
        groups: Group of each clip; none counts with fewer than two different ones.
        generator: Draws the fifth.

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
    """`held_out_split` of videos: all clips of four fifths of them, and the first clip of each of the others."""
    shown = first_views(videos)
    groups_shown = [groups[i] for i in shown.tolist()] if groups else ()
    fit, held = held_out_split(labels[shown], groups_shown, generator)
    return clips_of(shown[fit], videos), shown[held]


def _whole_groups(groups: Sequence[str], order: Sequence[str]) -> Int[Tensor, "held"]:
    """Clips of the first groups in `order` that make up a fifth; the last group is never taken."""
    held: list[int] = []
    for name in order[:-1]:
        if len(held) * HOLD_OUT_EVERY >= len(groups):
            break
        held += [i for i, group in enumerate(groups) if group == name]
    return torch.tensor(held)


def first_views(videos: Int[Tensor, "clips"]) -> Int[Tensor, "videos"]:
    """Position of the first clip of each video, ascending.

    >>> first_views(torch.tensor([4, 7, 4, 7])).tolist()
    [0, 1]
    """
    seen: dict[int, int] = {}
    for position, video in enumerate(videos.tolist()):
        seen.setdefault(video, position)
    return torch.tensor(list(seen.values()), dtype=torch.int64)


def clips_of(some: Int[Tensor, "some"], videos: Int[Tensor, "clips"]) -> Int[Tensor, "chosen"]:
    """All clips of the videos that the clips `some` show, ascending.

    >>> clips_of(torch.tensor([1]), torch.tensor([4, 7, 4, 7])).tolist()
    [1, 3]
    """
    return torch.isin(videos, videos[some]).nonzero()[:, 0]


def few_per_class(
    labels: Int[Tensor, "clips"], num_per_class: int, generator: torch.Generator
) -> Int[Tensor, "few"]:
    """Rows of at most `num_per_class` clips of each class, drawn by `generator`, ascending.

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
    """Clips that have a label, ascending: of all videos, or of `num_per_class` a class, drawn by `generator`."""
    kept = (labels >= 0).nonzero()[:, 0]
    if num_per_class is None:
        return kept
    shown = kept[first_views(videos[kept])]
    return clips_of(shown[few_per_class(labels[shown], num_per_class, generator)], videos)
