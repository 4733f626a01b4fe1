"""The verb `vjepa probe`."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vjepa.checkpoints import load_encoder
from vjepa.data.manifest import Manifest
from vjepa.models import VideoEncoder
from vjepa.probes.clips import ClipPlan
from vjepa.probes.devices import Device, device_of
from vjepa.probes.features import Precision, extract_features, random_twin
from vjepa.probes.files import card_of, save_probe
from vjepa.probes.folder import labelled_manifests
from vjepa.probes.namer import open_namer
from vjepa.probes.page import write_page
from vjepa.probes.protocol import fit_probe
from vjepa.probes.recipe import ClipChoice, resolve_recipe
from vjepa.probes.results import ProbeKind, ProbeResult
from vjepa.probes.trials import ProbeSettings
from vjepa.report import Report
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

DEFAULT_GRID = ProbeSettings()
PAGE = "report.html"


def probe(
    *,
    encoder: str,
    out: Path,
    train: str | None = None,
    val: str | None = None,
    folder: str | None = None,
    val_share: float = 0.25,
    protocol: str | None = None,
    probe: ProbeKind = "attentive",
    label: str = "label",
    root: str | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
    segments: int | None = None,
    views: int | None = None,
    augment: int = 0,
    random_init: bool = True,
    report: bool = False,
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
        out: Folder for the probe (which `vjepa classify` opens) and result.json.
        train: Manifest or folder of labelled videos to train on.
        val: Manifest or folder of labelled videos to test on; never used to choose anything.
        folder: In place of train and val: one folder of class folders, or one manifest, to be split in two by class,
            with each group of its column `group` on one side.
        val_share: Share of each class of the folder to test on.
        protocol: A published protocol by name, like ssv2; what else is given stays as given.
        probe: Kind of probe.
        label: Column of the manifests that holds the label.
        root: Folder that relative paths in the manifests start from (default: the manifest's own).
        num_frames: Frames of a clip (default: the encoder's).
        fps: Frames of the clip a second of video (default: every frame). Give the rate of pre-training.
        segments: Clips of a video, from equal parts of it, whose tokens the probe sees together; in training too
            (default: the protocol's, or 1).
        views: Squares along the longer side in the test, whose probabilities are averaged; 3 as published (default:
            the protocol's, or 1).
        augment: Random views of each training video, beside the plain one: RandAugment, crops and erased boxes.
        report: Also write report.html: confusion, classes, the worst clips, and where the probe looked.
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
    manifests = labelled_manifests(
        train=train, val=val, folder=folder, val_share=val_share, root=root, label=label, seed=seed
    )
    choice = ClipChoice(num_frames, fps, segments, views)
    extraction = {"batch_size": batch_size, "num_workers": num_workers, "precision": precision}
    options = {"num_per_class": num_per_class, "seed": seed, "device": device_of(device)}
    chances = {"decoder": decoder, "augment": augment, "seed": seed}
    work = {
        "kind": probe,
        "out": out,
        "extraction": extraction,
        "options": options,
        "random_init": random_init,
    }
    return _run(encoder, manifests, (protocol, choice, grid), chances=chances, page=report, work=work)


def _run(
    path: str,
    manifests: tuple[Manifest, Manifest],
    asked: tuple[str | None, ClipChoice, ProbeSettings],
    *,
    chances: dict[str, Any],
    page: bool,
    work: dict[str, Any],
) -> Report:
    """The verb, with its arguments by what they are for: recipe, reading of clips, page, and work."""
    model, names, out = load_encoder(path), manifests[0].label_names, work["out"]
    num_videos = sum(row.label >= 0 for row in manifests[0].rows)
    recipe = resolve_recipe(
        asked[0], model, asked[1], asked[2], num_classes=len(names), num_videos=num_videos
    )
    rate: dict[str, Any] = {"fps": recipe.fps, "frame_step": recipe.frame_step}
    work = work | {"plan": ClipPlan(num_frames=recipe.num_frames, layout=recipe.layout, **rate, **chances)}
    work["options"] = work["options"] | {"settings": recipe.settings}
    where, random_init = work["options"]["device"], work.pop("random_init")
    out.mkdir(parents=True, exist_ok=True)
    result, failures = _fitted(model.to(where), manifests, **work)
    card = card_of(result, names, model, path, num_frames=recipe.num_frames, layout=recipe.layout, **rate)
    save_probe(out, result.probe, card)
    if page:
        reading = {k: work["extraction"][k] for k in ("batch_size", "num_workers")}
        namer = open_namer(out, encoder=path, device=where)
        title = f"{result.kind} probe"
        write_page(out / PAGE, namer, manifests[1], title=title, decoder=chances["decoder"], **reading)
        log.info("page in %s", out / PAGE)
    baseline = None
    if random_init:
        baseline, more = _fitted(random_twin(model, seed=chances["seed"]), manifests, **work)
        failures |= more
    found = _report(result, baseline, names, sorted(failures, key=lambda failure: failure.path))
    return replace(found, figures=found.figures | {"recipe": recipe.stored})


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
