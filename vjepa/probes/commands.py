"""The verb `vjepa probe`."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vjepa.checkpoints import load_encoder
from vjepa.data.manifest import Manifest, read_manifest
from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError
from vjepa.probes.clips import ClipPlan
from vjepa.probes.devices import Device, device_of
from vjepa.probes.features import Precision, extract_features, random_twin
from vjepa.probes.files import card_of, save_probe
from vjepa.probes.protocol import fit_probe
from vjepa.probes.results import ProbeKind, ProbeResult
from vjepa.probes.trials import ProbeSettings
from vjepa.probes.views import ClipLayout
from vjepa.report import Report
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

DEFAULT_GRID = ProbeSettings()


def probe(
    *,
    encoder: str,
    train: str,
    val: str,
    out: Path,
    probe: ProbeKind = "attentive",
    label: str = "label",
    root: str | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
    segments: int = 1,
    views: int = 1,
    augment: int = 0,
    random_init: bool = True,
    num_per_class: int | None = None,
    grid: ProbeSettings = DEFAULT_GRID,
    seed: int = 0,
    batch_size: int = 32,
    num_workers: int = 0,
    precision: Precision = "fp32",
    device: Device = "auto",
    decoder: str = "auto",
) -> Report:
    """Train a probe on a frozen encoder and test it once on videos it has not seen.

    Args:
        encoder: Folder or .ckpt of the encoder.
        train: Manifest or folder of labelled videos to train on.
        val: Manifest or folder of labelled videos to test on; never used to choose anything.
        out: Folder for the probe (which `vjepa classify` opens) and result.json.
        probe: Kind of probe.
        label: Column of the manifests that holds the label.
        root: Folder that relative paths in the manifests start from (default: the manifest's own).
        num_frames: Frames of a clip (default: the encoder's).
        fps: Frames of the clip a second of video (default: every frame). Give the rate of pre-training.
        segments: Clips of a video, from equal parts of it, whose tokens the probe sees together; in training too.
        views: Squares along the longer side in the test, whose probabilities are averaged; 3 as published.
        augment: Random views of each training video, beside the plain one: RandAugment, crops and erased boxes.
        random_init: Also probe the same architecture with random weights, to compare.
        num_per_class: Train with this many clips of each class (default: all).
        grid: How the probe is trained; a held-out fifth of the training clips chooses from the grids.
        seed: Of everything drawn by chance.
        batch_size: Clips the encoder takes at a time.
        num_workers: Processes that decode videos.
        precision: Arithmetic of the encoder.
        device: Where to compute; auto takes a GPU if there is one.
        decoder: What reads the videos: auto, pyav, torchcodec, decord, frames, or a class path.
    """
    layout = ClipLayout(segments, views)
    plan = ClipPlan(num_frames, fps, decoder, layout, augment, seed)
    model, where = load_encoder(encoder), device_of(device)
    manifests = _labelled(train, val, root=root, label=label)
    out.mkdir(parents=True, exist_ok=True)
    extraction = {"batch_size": batch_size, "num_workers": num_workers, "precision": precision}
    options = {"num_per_class": num_per_class, "settings": grid, "seed": seed, "device": where}
    work: dict[str, Any] = {
        "kind": probe,
        "plan": plan,
        "out": out,
        "extraction": extraction,
        "options": options,
    }
    result, failures = _fitted(model.to(where), manifests, **work)
    names, frames = manifests[0].label_names, num_frames or model.config["num_frames"]
    card = card_of(result, names, model, encoder, num_frames=frames, fps=fps, layout=layout)
    save_probe(out, result.probe, card)
    baseline = None
    if random_init:
        baseline, more = _fitted(random_twin(model, seed=seed), manifests, **work)
        failures |= more
    return _report(result, baseline, names, sorted(failures, key=lambda failure: failure.path))


def _labelled(train: str, val: str, *, root: str | None, label: str) -> tuple[Manifest, Manifest]:
    """Both manifests, with the class ids of the first."""
    first = read_manifest(train, root=root, label_column=label)
    if not first.label_names:
        raise ProbeError(
            f"{train}: {first.describe()}. A probe needs labels: name their column with --label, or give a "
            "folder of class folders."
        )
    return first, read_manifest(val, root=root, label_column=label, label_names=first.label_names)


def _fitted(
    network: VideoEncoder,
    manifests: tuple[Manifest, Manifest],
    *,
    kind: ProbeKind,
    plan: ClipPlan,
    out: Path,
    extraction: dict[str, Any],
    options: dict[str, Any],
) -> tuple[ProbeResult, set[ClipFailure]]:
    """A probe of one network, and the clips that could not be read."""
    train, val = manifests
    with tempfile.TemporaryDirectory(dir=out, ignore_cleanup_errors=True) as scratch:
        extraction = extraction | {"scratch": Path(scratch)}
        known = extract_features(network, plan.train(train, network), layout=plan.train_layout, **extraction)
        unseen = extract_features(network, plan.test(val, network), layout=plan.layout, **extraction)
        result = fit_probe(
            kind,
            known.tokens,
            known.labels(train),
            unseen.tokens,
            unseen.labels(val),
            num_classes=len(train.label_names),
            groups=known.groups(train),
            train_videos=known.index,
            num_views=plan.layout.views,
            **options,
        )
    return result, set(known.failures + unseen.failures)


def _report(
    result: ProbeResult, baseline: ProbeResult | None, names: tuple[str, ...], failures: list[ClipFailure]
) -> Report:
    if not result.converged:
        log.warning("the probe had not converged: raise --grid.num_steps or --grid.max_iterations")
    compared = {"encoder": result, "random init": baseline}
    rows = [
        {"features": name, "top1": r.top1, "top5": r.top5, "converged": r.converged}
        for name, r in compared.items()
        if r is not None
    ]
    return Report(
        title=f"{result.kind} probe, {result.num_train} training and {result.num_val} validation clips",
        rows=rows,
        figures={
            "top1": result.top1,
            "top5": result.top5,
            "random_init_top1": None if baseline is None else baseline.top1,
            "chance": result.chance,
            "converged": result.converged,
            "random_init_converged": None if baseline is None else baseline.converged,
            "num_train": result.num_train,
            "num_val": result.num_val,
            "num_failures": len(failures),
            "per_class": dict(zip(names, result.per_class, strict=True)),
            "labels": names,
            "confusion": result.confusion,
            "chosen": result.settings,
            "history": [asdict(mark) for mark in result.history],
            "failures": [asdict(failure) for failure in failures],
        },
    )
