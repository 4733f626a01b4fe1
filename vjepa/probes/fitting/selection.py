"""How a probe is fitted: held-out training clips choose the settings, and the validation clips are used once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from vjepa.probes.base import ProbeError, Standardize
from vjepa.probes.fitting.blocks import TunedBlocks
from vjepa.probes.fitting.knn import fit_knn
from vjepa.probes.fitting.linear import fit_linear
from vjepa.probes.fitting.side_by_side import (
    Plan,
    fit_attentive,
    fit_finetune,
    fit_own,
    heads_for,
    steps_for,
)
from vjepa.probes.fitting.splits import held_out_videos, labelled_clips
from vjepa.probes.fitting.trials import LabelledTokens, ProbeData, ProbeSettings, Trial
from vjepa.probes.kinds import probe_class_of
from vjepa.probes.results import ProbeResult, Progress, has_converged, logits_of, scores_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Fitter:
    """The way to train probes of one kind on given tokens, again and again."""

    kind: str
    data: ProbeData
    seed: int
    tuned_blocks: TunedBlocks | None

    def trials(
        self, settings: ProbeSettings, rows: Int[Tensor, "rows"], held: Int[Tensor, "held"]
    ) -> list[Trial]:
        """Train a probe for every point of the grid."""
        if self.kind in ("linear", "knn"):
            fit = fit_linear if self.kind == "linear" else fit_knn
            return fit(self.data, rows, held, settings=settings)
        plan = Plan(rows, held, settings, steps_for(settings, self.data.num_videos), self.seed)
        if self.kind == "finetune":
            assert self.tuned_blocks is not None
            return fit_finetune(self.data, plan, tuned_blocks=self.tuned_blocks)
        if self.kind == "attentive":
            return fit_attentive(self.data, plan)
        return fit_own(self.data, plan, probe_class=probe_class_of(self.kind))

    def on_all_clips(self, settings: ProbeSettings) -> Trial:
        """Train one probe on all training clips."""
        (trial,) = self.trials(settings, torch.arange(len(self.data.labels)), torch.arange(0))
        return trial


def fit_probe(
    kind: str,
    train: LabelledTokens,
    val: LabelledTokens,
    *,
    num_classes: int,
    seed: int = 0,
    num_per_class: int | None = None,
    settings: ProbeSettings | None = None,
    device: torch.device | str = "cpu",
    num_views: int = 1,
    tuned_blocks: TunedBlocks | None = None,
) -> ProbeResult:
    """Train a probe on frozen tokens and measure it.

    Tokens are standardised by the training clips. Every setting of the grid is trained on four fifths of the
    training clips. The one that is best on the rest is trained again on all of them, and that probe is measured,
    once, on the validation clips. Clips labelled -1 are ignored.

    Args:
        kind: "linear", "attentive", "knn", "finetune", or the class path of a `Probe`.
        train: Tokens to train on.
        val: Tokens to measure on.
        num_classes: Number of classes.
        seed: Seed of the held-out fifth, the first weights, the order of the clips, and the few labels.
        num_per_class: Train with this many labelled clips per class, drawn by `seed` (default: all).
        settings: The grid; the default suits features of a few thousand clips.
        device: Where the probe is trained.
        num_views: Views whose tokens follow each other in a validation clip; their probabilities are averaged.
        tuned_blocks: For kind "finetune": the last blocks, which take the tokens; they are copied.

    Raises:
        ProbeError: If the labels do not make a task.
    """
    settings, device = settings or ProbeSettings(), torch.device(device)
    generator = torch.Generator().manual_seed(seed)
    train = _labelled(train, num_per_class, generator)
    val_rows = (val.labels >= 0).nonzero()[:, 0]
    _check(train.labels, val.labels[val_rows], num_classes)
    standardize = Standardize(embed_dim=train.tokens.shape[-1])
    if tuned_blocks is None:
        standardize.measure(train.tokens)
    assert train.videos is not None
    num_videos, standardize = len(train.videos.unique()), standardize.to(device)
    data = ProbeData(train.tokens, train.labels, standardize, num_classes, device, num_videos=num_videos)
    split = held_out_videos(train.labels, train.groups, train.videos, generator)
    final, chosen, used = _chosen(_Fitter(kind, data, seed, tuned_blocks), settings, split)
    history = _history(final, chosen)
    logits = logits_of(final.probe, val.tokens, val_rows, device, num_views=num_views)
    return ProbeResult(
        kind=kind,
        scores=scores_of(logits, val.labels[val_rows]),
        converged=has_converged(history),
        history=history,
        settings={**final.setting, **_fixed(kind, used, data)},
        num_train=num_videos,
        num_val=len(val_rows),
        probe=final.probe.cpu().eval(),
    )


def _labelled(train: LabelledTokens, num_per_class: int | None, generator: torch.Generator) -> LabelledTokens:
    """Return the clips with a label, of all videos or of a few per class, with the video of each."""
    videos = torch.arange(len(train.labels)) if train.videos is None else train.videos
    kept = labelled_clips(train.labels, videos, num_per_class, generator)
    if len(kept) == len(train.labels):
        return replace(train, videos=videos)
    groups = [train.groups[i] for i in kept.tolist()] if train.groups else ()
    return LabelledTokens(train.tokens[kept], train.labels[kept], groups, videos[kept])


def _chosen(
    fitter: _Fitter, settings: ProbeSettings, split: tuple[Int[Tensor, "rows"], Int[Tensor, "held"]]
) -> tuple[Trial, Trial, ProbeSettings]:
    """Return the probe trained on all clips, the held-out trial that chose its settings, and the settings.

    Without given steps, a probe that has not converged is trained again with twice as many.
    """
    chosen = best_trial(fitter.trials(settings, *split))
    one_point: dict[str, Any] = {name: (value,) for name, value in chosen.setting.items()}
    used = replace(settings, **one_point)
    final = fitter.on_all_clips(used)
    counts_steps = fitter.kind not in ("linear", "knn") and settings.num_steps is None
    if counts_steps and not has_converged(_history(final, chosen)):
        used = replace(used, num_steps=2 * steps_for(settings, fitter.data.num_videos))
        (chosen,) = fitter.trials(used, *split)
        final = fitter.on_all_clips(used)
    return final, chosen, used


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the highest held-out accuracy; among equals, the one with the lowest held-out loss."""
    return max(trials, key=lambda trial: (trial.marks[-1].held_out_accuracy, -trial.marks[-1].held_out_loss))


def _fixed(kind: str, settings: ProbeSettings, data: ProbeData) -> dict[str, int]:
    """Return the settings that do not vary in the grid."""
    if kind == "linear":
        return {"max_iterations": settings.max_iterations}
    if kind == "knn":
        return {"num_clips": len(data.labels)}
    steps = {"num_steps": steps_for(settings, data.num_videos), "batch_size": settings.batch_size}
    if kind not in ("attentive", "finetune"):
        return steps
    heads = settings.num_heads or heads_for(data.tokens.shape[-1])
    return steps | {"num_heads": heads, "depth": settings.depth}


def _history(final: Trial, chosen: Trial) -> tuple[Progress, ...]:
    return tuple(
        Progress(
            final_mark.step, final_mark.train_loss, final_mark.train_accuracy, held_out_mark.held_out_accuracy
        )
        for final_mark, held_out_mark in zip(final.marks, chosen.marks, strict=True)
    )


def _check(train: Int[Tensor, "train"], val: Int[Tensor, "val"], num_classes: int) -> None:
    for name, labels in (("training", train), ("validation", val)):
        if not len(labels):
            raise ProbeError(f"no {name} clip has a label. Name the manifest's column of labels.")
        if int(labels.max()) >= num_classes:
            raise ProbeError(
                f"{name} label {int(labels.max())} with num_classes {num_classes}. "
                f"Give num_classes of at least {int(labels.max()) + 1}."
            )
    seen = train.unique()
    if len(seen) < 2:
        raise ProbeError(
            f"all {len(train)} training clips are of one class: nothing to tell apart. "
            "Give clips of at least two classes."
        )
    unseen = sorted(set(val.tolist()) - set(seen.tolist()))
    if unseen:
        raise ProbeError(
            f"{len(unseen)} classes of the validation clips have no training clip: ids {unseen[:8]}. "
            "Add training clips of them, or take them out of the validation manifest."
        )
