"""What a probe reached: accuracies on clips it has never seen, and whether its training had converged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from vjepa.features.encode import join_segments
from vjepa.probes.base import Probe, clips_per_chunk

RESAMPLES, CONFIDENCE = 10_000, 0.95
MOST_UNEQUAL = 2  # times as many clips of one class as of another, at which top-1 hides the small classes
SETTLED_LOSS_CHANGE = 0.05  # share of the training loss that the last quarter of the steps may still remove
SOLVED_ACCURACY = 0.99  # of the training clips: little is left to learn


@dataclass(frozen=True)
class Progress:
    """A probe at one point of its training: `train_*` are those of the returned probe, on the training clips.

    `held_out_accuracy` is that of a second probe with the same settings, trained on four fifths of the clips and
    measured on the rest.
    """

    step: int
    train_loss: float
    train_accuracy: float
    held_out_accuracy: float


@dataclass(frozen=True)
class Scores:
    """Accuracies on some clips, shares of 1.

    `interval` is the 95 % bootstrap interval of top-1 over the clips. `per_class` has the accuracy of each
    class, nan without clips of it. `confusion` has a row of counts per true class. `chance` is the share of
    the largest class.
    """

    top1: float
    interval: tuple[float, float]
    top5: float
    per_class: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    chance: float


@dataclass(frozen=True)
class ProbeResult:
    """A trained probe and its `scores` on the validation clips.

    `settings` are those that the held-out fifth chose.
    """

    kind: str
    scores: Scores
    converged: bool
    history: tuple[Progress, ...]
    settings: dict[str, Any]
    num_train: int
    num_val: int
    probe: Probe

    @property
    def top1(self) -> float:
        """Share of the validation clips whose label has the highest score."""
        return self.scores.top1

    @property
    def class_mean(self) -> float:
        """Mean of the accuracies of the classes that have validation clips; each class counts the same."""
        known = [share for share in self.scores.per_class if share == share]
        return sum(known) / len(known)

    @property
    def is_unbalanced(self) -> bool:
        """Whether the largest class among the validation clips has more than twice the clips of the smallest."""
        counts = [sum(row) for row in self.scores.confusion if sum(row)]
        return max(counts) > MOST_UNEQUAL * min(counts)

    @property
    def chance(self) -> float:
        """Share of the largest class among the validation clips."""
        return self.scores.chance

    def __repr__(self) -> str:
        state = "converged" if self.converged else "not converged"
        return f"ProbeResult({self.kind}, top1={self.top1:.3f}, chance={self.chance:.3f}, {state})"


def has_converged(history: Sequence[Progress]) -> bool:
    """Return whether the last quarter of the steps changed little, or the training clips are solved.

    The learning rate falls to 0 in that quarter, so a rate that is far too low looks converged as well: the
    training accuracy in the history tells the two apart.
    """
    if len(history) == 1:  # nothing was trained
        return True
    before, last = history[-2], history[-1]
    change = abs(before.train_loss - last.train_loss) / max(before.train_loss, 1e-12)
    return change < SETTLED_LOSS_CHANGE or last.train_accuracy > SOLVED_ACCURACY


def mean_probabilities(
    probe: Probe, tokens: Float[Tensor, "b segments views n d"], *, attend_across_segments: bool = True
) -> Float[Tensor, "b classes"]:
    """Return class probabilities of videos: the mean over views of the softmax of the probe's scores.

    Args:
        probe: The probe, in eval mode.
        tokens: Tokens of all clips, from `vjepa.features.encode.view_tokens`.
        attend_across_segments: The probe sees the segments of a view together, as in the published protocols;
            otherwise it sees each clip by itself, and the mean is over segments too.
    """
    if not attend_across_segments:
        tokens = rearrange(tokens, "b s v n d -> b 1 (s v) n d")
    joined = join_segments(tokens)
    probabilities = probe(rearrange(joined, "b v m d -> (b v) m d")).softmax(dim=-1)
    return reduce(probabilities, "(b v) classes -> b classes", "mean", v=joined.shape[1])


@torch.no_grad()
def logits_of(
    probe: Probe,
    tokens: Float[Tensor, "clips n d"],
    rows: Int[Tensor, "rows"],
    device: torch.device,
    *,
    num_views: int = 1,
) -> Float[Tensor, "rows classes"]:
    """Return class scores of some clips, a chunk at a time; with several views, their mean probabilities."""

    def scored(chunk: Tensor) -> Tensor:
        some = tokens[chunk].to(device).float()
        if num_views == 1:
            return probe(some).float()
        return mean_probabilities(probe, rearrange(some, "b (v n) d -> b 1 v n d", v=num_views)).float()

    return torch.cat([scored(chunk).cpu() for chunk in rows.split(clips_per_chunk(tokens))])


def scores_of(logits: Float[Tensor, "clips classes"], labels: Int[Tensor, "clips"]) -> Scores:
    """Return the accuracies of class scores.

    >>> scores_of(torch.eye(2), torch.tensor([0, 0])).top1
    0.5
    """
    classes = logits.shape[1]
    confusion = multiclass_confusion_matrix(logits, labels, classes)
    counts = confusion.sum(dim=1)

    def top(k: int) -> float:
        share = multiclass_accuracy(logits, labels, classes, top_k=min(k, classes), average="micro")
        return round(float(share) * len(labels)) / len(labels)  # free of fp32 rounding

    return Scores(
        top1=top(1),
        interval=bootstrap_interval(round(top(1) * len(labels)), len(labels)),
        top5=top(5),
        per_class=tuple((confusion.diag() / counts).tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        chance=float(counts.max() / counts.sum()),
    )


def bootstrap_interval(num_right: int, num_clips: int) -> tuple[float, float]:
    """Return the middle 95 % of the accuracies of 10,000 resamples of the clips, with replacement.

    The number of right answers in a resample is binomial, so it is drawn as such.

    >>> bootstrap_interval(50, 100)
    (0.4, 0.6)
    """
    drawn = np.random.default_rng(0).binomial(num_clips, num_right / num_clips, RESAMPLES) / num_clips
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest").tolist()
    return low, high
