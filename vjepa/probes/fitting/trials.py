"""What all ways of training a probe share: the labelled tokens, the settings, and a trial of one setting."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vjepa.data.manifests.rows import Manifest
from vjepa.errors import SettingError
from vjepa.features.tokens import ClipTokens
from vjepa.probes.base import Probe, Standardize

MARKS = (0.5, 0.75, 1.0)  # shares of the training at which a probe is measured


@dataclass(frozen=True)
class ProbeSettings:
    """How probes are trained; each tuple is a grid.

    A held-out fifth of the training clips chooses from it. Each entry begins with the kind of probe that
    reads it; finetune also reads those of attentive; a class of one's own reads the first four entries.

    Args:
        lr: attentive: learning rates (AdamW, cosine to 0).
        weight_decay: attentive: weight decays.
        num_steps: attentive: optimiser steps (default: 20 passes over the training videos, at least 600; then
            twice as many if the probe has not converged).
        batch_size: attentive: clips per step.
        num_heads: attentive: attention heads (default: one per 64 channels).
        depth: attentive: 1 for the probe of V-JEPA, 4 for that of V-JEPA 2.
        l2: linear: penalties on the squared weights, for pooled features of variance 1.
        max_iterations: linear: iterations of full-batch L-BFGS.
        num_blocks: finetune: last blocks of the encoder that are trained too.
        tail_scale: finetune: learning rate of these blocks relative to that of the probe.
        k: knn: numbers of neighbours.
        temperature: knn: temperatures, for the cosines of mean tokens.
    """

    lr: tuple[float, ...] = (3e-3, 1e-3)
    weight_decay: tuple[float, ...] = (0.3,)
    num_steps: int | None = None
    batch_size: int = 64
    num_heads: int | None = None
    depth: int = 1
    l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    max_iterations: int = 200
    num_blocks: int = 2
    tail_scale: float = 0.1
    k: tuple[int, ...] = (5, 10, 20)
    temperature: tuple[float, ...] = (0.07,)

    def __post_init__(self) -> None:
        if not all((self.lr, self.weight_decay, self.l2, self.k, self.temperature)):
            raise SettingError(
                "an empty grid: give at least one value each for lr, weight_decay, l2, k and temperature."
            )
        if min(self.batch_size, self.num_steps or 4, self.max_iterations) < 1:
            raise SettingError(
                f"batch_size {self.batch_size}, num_steps {self.num_steps}, max_iterations "
                f"{self.max_iterations}: give at least 1 each."
            )

    @property
    def points(self) -> list[dict[str, float]]:
        """Every pair of learning rate and weight decay."""
        pairs = itertools.product(self.lr, self.weight_decay)
        return [{"lr": lr, "weight_decay": decay} for lr, decay in pairs]


@dataclass(frozen=True)
class LabelledTokens:
    """Tokens (clips, N, D) of any float type, also in a memory-mapped file, with their class ids (-1: no label).

    `groups` has the group of each clip, or is empty: a group is never on both sides of the held-out split. `videos`
    says which video each clip shows, if several show the same one: all of them are on one side of the split, and the
    first represents the video where accuracies are measured.
    """

    tokens: Float[Tensor, "clips n d"]
    labels: Int[Tensor, "clips"]
    groups: Sequence[str] = ()
    videos: Int[Tensor, "clips"] | None = None

    @classmethod
    def of(cls, found: ClipTokens, manifest: Manifest) -> LabelledTokens:
        """Return the tokens of a manifest's clips with its labels and groups."""
        return cls(found.tokens, found.labels(manifest), found.groups(manifest), found.index)

    def __repr__(self) -> str:
        return f"LabelledTokens(tokens={tuple(self.tokens.shape)})"


@dataclass(frozen=True)
class ProbeData:
    """Labelled tokens of the training clips, as the encoder gave them, and their standardisation.

    `num_videos` is the number of clips, or less if several are views of one video.
    """

    tokens: Float[Tensor, "clips n d"]
    labels: Int[Tensor, "clips"]
    standardize: Standardize
    num_classes: int
    device: torch.device
    num_videos: int


@dataclass(frozen=True)
class Mark:
    """A probe at one point of its training; `held_out_*` are nan if nothing is held out."""

    step: int
    train_loss: float
    train_accuracy: float
    held_out_loss: float
    held_out_accuracy: float


@dataclass(frozen=True)
class Trial:
    """A probe trained with one setting of a grid, measured after a half, three quarters and all of the training."""

    setting: dict[str, Any]
    probe: Probe
    marks: tuple[Mark, ...]


def mark_of(
    step: int,
    logits: Float[Tensor, "clips classes"],
    labels: Int[Tensor, "clips"],
    rows: Int[Tensor, "rows"],
    held: Int[Tensor, "held"],
) -> Mark:
    """Return the losses and accuracies on the training clips `rows` and on those held out."""
    train, held_out = (loss_and_accuracy(logits[some], labels[some]) for some in (rows, held))
    return Mark(step, *train, *held_out)


def loss_and_accuracy(
    logits: Float[Tensor, "clips classes"], labels: Int[Tensor, "clips"]
) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy; nan without clips."""
    if not len(labels):
        return float("nan"), float("nan")
    loss = F.cross_entropy(logits, labels)
    return float(loss), float((logits.argmax(dim=1) == labels).double().mean())
