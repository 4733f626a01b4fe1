"""Fine-tuning: the last blocks of an encoder trained with an attentive probe, on tokens of the frozen blocks before."""

from __future__ import annotations

import copy
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vjepa.probes.base import Probe, StandardizedProbe, clips_at_once
from vjepa.probes.fitting.attentive import SideBySide, new_probe, points_of, train_side_by_side
from vjepa.probes.fitting.blocks import TunedBlocks
from vjepa.probes.fitting.trials import ProbeData, ProbeSettings, Trial


class FinetunedProbe(Probe):
    """The last blocks of an encoder, and a probe of what they give.

    Args:
        tuned_blocks: The blocks.
        head: The probe.
    """

    def __init__(self, tuned_blocks: TunedBlocks, head: StandardizedProbe) -> None:
        super().__init__()
        self.tuned_blocks, self.head = tuned_blocks, head

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Tokens (B, N, D) of a `FrozenBlocks` to logits (B, classes)."""
        return cast("Tensor", self.head(self.tuned_blocks(tokens)))


def fit_finetune(
    data: ProbeData,
    rows: Int[Tensor, "rows"],
    held: Int[Tensor, "held"],
    *,
    tuned_blocks: TunedBlocks,
    settings: ProbeSettings,
    num_steps: int,
    seed: int,
) -> list[Trial]:
    """An attentive probe and a copy of `tuned_blocks`, trained together, for every point of the grid.

    Tokens are standardised by what the tuned_blocks gives before training. Nothing is shared but the minibatches: a grid
    costs as many tails as it has points, in memory too.

    Args:
        data: Labelled tokens of a `FrozenBlocks`.
        rows: Clips to train on.
        held: Clips to measure on.
        tuned_blocks: The last blocks; not changed.
        settings: The grid; `tail_scale` times the learning rate is that of the blocks.
        num_steps: Optimiser steps.
        seed: Of the first weights of the probe and of the order of the clips.
    """
    points = points_of(settings)
    with torch.no_grad():
        first = data.tokens[rows[: clips_at_once(data.tokens)]].to(data.device)
        data.standardize.measure(tuned_blocks.to(data.device)(first))
    probes = [
        FinetunedProbe(
            copy.deepcopy(tuned_blocks), StandardizedProbe(data.standardize, new_probe(data, settings, seed))
        )
        for _ in points
    ]
    groups = []
    for probe, point in zip(probes, points, strict=True):
        groups.append({"params": list(probe.head.parameters()), "scale": 1.0, **point})
        groups.append(
            {"params": list(probe.tuned_blocks.parameters()), "scale": settings.tail_scale, **point}
        )
    trained = SideBySide(
        points=points,
        probes=list(probes),
        groups=groups,
        scores=lambda tokens: torch.stack([probe(tokens) for probe in probes]),
    )
    return train_side_by_side(data, rows, held, trained, settings=settings, num_steps=num_steps, seed=seed)
