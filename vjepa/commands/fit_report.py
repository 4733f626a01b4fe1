"""The report of a fit: loss, health, probes against random init, and a picture."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

from vjepa.commands.report import Report
from vjepa.data import EvalTransform, ImageEvalTransform, VideoDataModule, read_manifest
from vjepa.data.transforms.video import ClipTransform
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.encode import Precision
from vjepa.features.tokens import ClipTokens, tokens_of
from vjepa.models import VideoEncoder
from vjepa.probes import LabelledTokens, ProbeKind, ProbeResult, fit_probe, random_init_like
from vjepa.probes.comparison import accuracy_in_words, compared_in_words
from vjepa.training import HealthVerdict, PretrainModule, run_folder
from vjepa.types import PixelScale
from vjepa.visualize import run_picture
from vjepa.visualize.strips import pixels_of

log = logging.getLogger(__name__)

HEALTH = (
    "loss",
    "loss_over_mean",
    "target_std",
    "target_rank",
    "target_cosine",
    "prediction_std",
    "prediction_rank",
)
PICTURE = "report.png"


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Probes and a picture at the end of a fit.

    Args:
        labels: Columns of the manifests to probe for; needs `data.val` or `data.world`.
        probes: Kinds of probes.
        picture: Draw the picture.
    """

    labels: tuple[str, ...] = ("label",)
    probes: tuple[ProbeKind, ...] = ("linear", "attentive")
    picture: bool = True


def report_run(
    trainer: L.Trainer,
    module: PretrainModule,
    encoder: VideoEncoder,
    data: VideoDataModule,
    settings: ReportSettings | None,
    *,
    run: Path,
) -> Report:
    """Return the report of a finished fit.

    `encoder` is the target encoder with all weights; `run` is how to name the folder of the run. Without `settings`
    there are only loss and health.
    """
    closing: list[str] = []
    rows: list[dict[str, Any]] = _health_rows(trainer)
    judges = [callback for callback in cast("Any", trainer).callbacks if isinstance(callback, HealthVerdict)]
    rows += [{"what": "verdict", "trained": str(judge.verdict)} for judge in judges]
    if data.ledger.reasons:
        data.ledger.write(_folder(trainer) / "failures.csv")
        log.warning("%s", data.ledger.summary())
    figures: dict[str, Any] = {
        "health": {row["what"]: row["trained"] for row in rows},
        "steps": trainer.global_step,
        "clips_per_step": module.clips_per_step,
        "peak_lr": module.peak_lr(),
        "failed_clips": len(data.ledger.reasons),
        "padded_share": round(data.ledger.padded_share, 4),
        "log_dir": str(_folder(trainer)),
    }
    rows.append({"what": "clips per step", "trained": f"{module.clips_per_step:g}"})
    rows.append({"what": "peak learning rate", "trained": f"{module.peak_lr():.4g}"})
    if data.ledger.padded_share:
        share = f"{100 * data.ledger.padded_share:.1f} %"
        rows.append({"what": "clips padded with a short video's last frame", "trained": share})
    if settings is not None and data.val_manifest is not None:
        random_init = random_init_like(encoder, seed=module.seed)
        trained, untrained = (_features(network, data, trainer) for network in (encoder, random_init))
        for label in settings.labels or ():
            if label not in data.val_manifest.columns:  # the recipe's labels, with data of the user's own
                log.warning("%s has no column %r: no probes for it", data.val_manifest.source, label)
                continue
            results = probe_results(data, label, settings.probes, trained, untrained, seed=module.seed)
            best = max(results, key=lambda pair: pair[0].top1)
            closing.append(f"{label}: the {best[0].kind} probe {compared_in_words(*best)}")
            figures[f"probe_{label}"] = scores = _scores(results)
            rows += [
                {"what": f"{label}, {kind} probe (top-1)"} | {k: f"{100 * v:.1f} %" for k, v in s.items()}
                for kind, s in scores.items()
            ]
        if settings.picture:
            path = _folder(trainer) / PICTURE
            draw_run(trainer, module, data, encoder, random_init).save(path)
            figures["picture"] = str(path)
    closing += [
        f"everything is in {run}: the encoder in {run / 'export'}",
        f"next: {next_command(data, run)}",
    ]
    return Report(title="run", rows=rows, figures=figures, closing=tuple(closing))


def _scores(results: list[tuple[ProbeResult, ProbeResult]]) -> dict[str, dict[str, float]]:
    """Return top-1 by kind of probe: of the trained encoder, of random init, and by chance."""
    return {
        after.kind: {"trained": after.top1, "random init": before.top1, "chance": after.chance}
        for after, before in results
    }


def next_command(data: VideoDataModule, run: Path) -> str:
    """Return a command to try the encoder: a probe if the clips have labels, else features."""
    encoder, root, (train, val) = run / "export", run.parent, (data.sources["train"], data.sources["val"])
    labelled = data.manifest("train").label_names and data.val_manifest and data.val_manifest.label_names
    words = ["vjepa", "probe" if labelled else "extract", "--encoder", str(encoder)]
    words += ["--train", str(train), "--val", str(val)] if labelled else ["--data", str(train)]
    return shlex.join([*words, "--out", str(root / ("probe" if labelled else "features"))])


def probe_results(
    data: VideoDataModule,
    label: str,
    kinds: Sequence[ProbeKind],
    trained: dict[str, ClipTokens],
    untrained: dict[str, ClipTokens],
    *,
    seed: int,
) -> list[tuple[ProbeResult, ProbeResult]]:
    """Return, per kind of probe, its results on the trained encoder and on random init."""
    train = read_manifest(str(data.sources["train"]), root=data.root, label_column=label)
    val = read_manifest(
        str(data.sources["val"]), root=data.root, label_column=label, label_names=train.label_names
    )
    found: list[tuple[ProbeResult, ProbeResult]] = []
    for kind in kinds:
        after, before = (
            fit_probe(
                kind,
                LabelledTokens.of(features["train"], train),
                LabelledTokens.of(features["val"], val),
                num_classes=len(train.label_names),
                seed=seed,
            )
            for features in (trained, untrained)
        )
        log.info("%s, %s probe: %s, %s at random init", label, kind, *map(accuracy_in_words, (after, before)))
        found.append((after, before))
    return found


def draw_run(
    trainer: L.Trainer,
    module: PretrainModule,
    data: VideoDataModule,
    encoder: VideoEncoder,
    random_init: VideoEncoder,
) -> Any:
    """Return the picture of a run on its first readable validation clip."""
    video = next(batch.video[:1] for batch in data.val_dataloader() if len(batch))
    grid = encoder.grid_of(video)
    generator = module.mask_generator(0, 0)
    drawn = ((type(m).__name__, m.sample(grid, 1, generator)) for m in module.objective.masks)
    masks = {f"{name} {i + 1}": pair for i, (name, pair) in enumerate(drawn)}
    with torch.no_grad():
        tokens = [network.cpu().eval()(video)[0] for network in (encoder, random_init)]
    return run_picture(
        video=pixels_of(video[0], shown_scale(data.transform.centred(), video[0])),
        grid=grid,
        masks=masks,
        target_tokens=tokens[0],
        random_tokens=tokens[1],
        metrics_csv=_folder(trainer) / "metrics.csv",
        title=f"{trainer.global_step} steps, {encoder.num_parameters / 1e6:.2f} M parameters",
    )


def shown_scale(transform: ClipTransform, video: Float[Tensor, "3 t h w"]) -> PixelScale:
    """Return the normalisation that a transform applied; if it does not say, the range of the values."""
    if isinstance(transform, EvalTransform | ImageEvalTransform):
        return PixelScale(transform.mean, transform.std)
    low, high = float(video.min()), float(video.max())
    width = max(high - low, 1e-6)  # of a clip of one colour
    mean, std = -low / width, 1 / width
    return PixelScale((mean, mean, mean), (std, std, std))


def _folder(trainer: L.Trainer) -> Path:
    folder = run_folder(trainer)
    assert folder is not None  # the caller has checked `keeps_files`
    return folder


def _health_rows(trainer: L.Trainer) -> list[dict[str, Any]]:
    """Return the latest loss and health, on held-out clips if there are any, else on training clips."""
    known = trainer.callback_metrics | trainer.logged_metrics
    found = []
    for name in HEALTH:
        stage = "val" if f"val/{name}" in known else "train"
        if f"{stage}/{name}" in known:
            found.append({"what": f"{stage} {name}", "trained": round(float(known[f"{stage}/{name}"]), 4)})
    return found


def _features(encoder: VideoEncoder, data: VideoDataModule, trainer: L.Trainer) -> dict[str, ClipTokens]:
    precision: Precision = "bf16" if "bf16" in str(trainer.precision) else "fp32"
    return {
        split: tokens_of(
            encoder, data.clips(split), ClipSpec(), num_workers=data.num_workers, precision=precision
        )
        for split in ("train", "val")
    }
