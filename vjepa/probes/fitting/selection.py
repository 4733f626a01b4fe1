"""The protocol of a probe: settings chosen on held-out training clips, one look at the validation clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vjepa.probes.base import ProbeError, Standardize
from vjepa.probes.fitting.attentive import fit_attentive, heads_for, steps_for
from vjepa.probes.fitting.finetune import TunedBlocks, fit_finetune
from vjepa.probes.fitting.linear import fit_linear
from vjepa.probes.fitting.splits import held_out_videos, labelled_clips
from vjepa.probes.fitting.trials import ProbeData, ProbeSettings, Trial
from vjepa.probes.knn import fit_knn
from vjepa.probes.results import ProbeKind, ProbeResult, Progress, has_converged, logits_of, scores

log = logging.getLogger(__name__)


def fit_probe(
    kind: ProbeKind,
    train_tokens: Float[Tensor, "train n d"],
    train_labels: Int[Tensor, "train"],
    val_tokens: Float[Tensor, "val m d"],
    val_labels: Int[Tensor, "val"],
    *,
    num_classes: int,
    seed: int = 0,
    groups: Sequence[str] = (),
    num_per_class: int | None = None,
    settings: ProbeSettings | None = None,
    device: torch.device | str = "cpu",
    train_videos: Int[Tensor, "train"] | None = None,
    num_views: int = 1,
    tuned_blocks: TunedBlocks | None = None,
) -> ProbeResult:
    """Train a probe on frozen tokens and measure it.

    Tokens are standardised by the training clips. Every setting of the grid is trained on four fifths of the
    training clips; the one that is best on the rest is trained again on all of them, and that probe is
    measured, once, on the validation clips. Clips labelled -1 are left out.

    Args:
        kind: "linear", "attentive", "knn" or "finetune".
        train_tokens: Tokens (clips, N, D) to train on, of any float type; a file mapped to memory will do.
        train_labels: Their class ids.
        val_tokens: Tokens to measure on.
        val_labels: Their class ids.
        num_classes: Number of classes.
        seed: Of the held-out fifth, the first weights, the order of clips, and the few labels.
        groups: Group of each training clip; a group is never on both sides of the held-out split.
        num_per_class: Train with this many labelled clips a class, drawn by `seed`; all by default.
        settings: The grid; the default is for features of a few thousand clips.
        device: Where the probe is trained.
        train_videos: Which video each training clip shows, where some show the same: all clips of a video are on one
            side of the held-out split, and its first clip stands for it where accuracies are measured.
        num_views: Views whose tokens follow each other in a validation clip; their probabilities are averaged.
        tuned_blocks: Of kind "finetune": the last blocks, which the tokens go to; they are copied.

    Raises:
        ProbeError: If the labels do not make a task.
    """
    settings, generator = settings or ProbeSettings(), torch.Generator().manual_seed(seed)
    videos = torch.arange(len(train_labels)) if train_videos is None else train_videos
    kept = labelled_clips(train_labels, videos, num_per_class, generator)
    val_rows = (val_labels >= 0).nonzero()[:, 0]
    _check(train_labels[kept], val_labels[val_rows], num_classes)
    if len(kept) < len(train_labels):
        train_tokens, train_labels, videos = train_tokens[kept], train_labels[kept], videos[kept]
        groups = [groups[i] for i in kept.tolist()] if groups else ()
    standardize, device = Standardize(embed_dim=train_tokens.shape[-1]), torch.device(device)
    if tuned_blocks is None:
        standardize.measure(train_tokens)
    num_videos = len(videos.unique())
    data = ProbeData(train_tokens, train_labels, standardize.to(device), num_classes, device, num_videos)
    rows, held = held_out_videos(train_labels, groups, videos, generator)
    twin = best_trial(_trials(kind, data, rows, held, settings, seed, tuned_blocks))
    alone: dict[str, Any] = {name: (value,) for name, value in twin.setting.items()}
    used = replace(settings, **alone)
    final = _on_everything(kind, data, used, seed, tuned_blocks)
    if (
        kind in ("attentive", "finetune")
        and settings.num_steps is None
        and not has_converged(_merged(final, twin))
    ):
        used = replace(used, num_steps=2 * steps_for(settings, num_videos))
        (twin,) = _trials(kind, data, rows, held, used, seed, tuned_blocks)
        final = _on_everything(kind, data, used, seed, tuned_blocks)
    history = _merged(final, twin)
    return ProbeResult(
        kind=kind,
        **_tested(final, val_tokens, val_labels, val_rows, num_views, device),
        converged=has_converged(history),
        history=history,
        settings={**final.setting, **_fixed(kind, used, data)},
        num_train=num_videos,
        num_val=len(val_rows),
        probe=final.probe.cpu().eval(),
    )


def _tested(
    final: Trial,
    tokens: Float[Tensor, "val m d"],
    labels: Int[Tensor, "val"],
    rows: Int[Tensor, "rows"],
    num_views: int,
    device: torch.device,
) -> dict[str, Any]:
    return scores(logits_of(final.probe, tokens, rows, device, num_views=num_views), labels[rows])


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the most right answers on the held-out clips, of equals the one with the lowest loss."""
    return max(trials, key=lambda trial: (trial.marks[-1].held_out_accuracy, -trial.marks[-1].held_out_loss))


def _trials(
    kind: ProbeKind,
    data: ProbeData,
    rows: Int[Tensor, "rows"],
    held: Int[Tensor, "held"],
    settings: ProbeSettings,
    seed: int,
    tuned_blocks: TunedBlocks | None,
) -> list[Trial]:
    if kind == "linear":
        return fit_linear(data, rows, held, settings=settings)
    if kind == "knn":
        return fit_knn(data, rows, held, settings=settings)
    num_steps = steps_for(settings, data.num_videos)
    if kind == "finetune":
        assert tuned_blocks is not None
        return fit_finetune(
            data, rows, held, tuned_blocks=tuned_blocks, settings=settings, num_steps=num_steps, seed=seed
        )
    return fit_attentive(data, rows, held, settings=settings, num_steps=num_steps, seed=seed)


def _on_everything(
    kind: ProbeKind, data: ProbeData, settings: ProbeSettings, seed: int, tuned_blocks: TunedBlocks | None
) -> Trial:
    (trial,) = _trials(
        kind, data, torch.arange(len(data.labels)), torch.arange(0), settings, seed, tuned_blocks
    )
    return trial


def _fixed(kind: ProbeKind, settings: ProbeSettings, data: ProbeData) -> dict[str, int]:
    """What does not vary in the grid, as it was used."""
    if kind == "linear":
        return {"max_iterations": settings.max_iterations}
    if kind == "knn":
        return {"num_clips": len(data.labels)}
    return {
        "num_steps": steps_for(settings, data.num_videos),
        "batch_size": settings.batch_size,
        "num_heads": settings.num_heads or heads_for(data.tokens.shape[-1]),
        "depth": settings.depth,
    }


def _merged(final: Trial, twin: Trial) -> tuple[Progress, ...]:
    return tuple(
        Progress(kept.step, kept.train_loss, kept.train_accuracy, other.held_out_accuracy)
        for kept, other in zip(final.marks, twin.marks, strict=True)
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
