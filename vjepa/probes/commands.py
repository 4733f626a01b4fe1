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
from vjepa.probes.base import ProbeError, StandardizedProbe
from vjepa.probes.cache import Shard, TokenFile, cache_folder
from vjepa.probes.clips import ClipPlan
from vjepa.probes.devices import Device, device_of
from vjepa.probes.features import Features, Precision, extract_features, random_twin
from vjepa.probes.files import card_of, save_probe
from vjepa.probes.finetune import FinetunedProbe
from vjepa.probes.folder import labelled_manifests
from vjepa.probes.namer import open_namer
from vjepa.probes.page import write_page
from vjepa.probes.protocol import fit_probe
from vjepa.probes.recipe import ClipChoice, Recipe, resolve_recipe
from vjepa.probes.results import ProbeKind, ProbeResult
from vjepa.probes.trials import ProbeSettings
from vjepa.probes.trunk import Trunk
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
    layers: tuple[int, ...] | None = None,
    augment: int = 0,
    cache: Path | None = None,
    rank: int = 0,
    world_size: int = 1,
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
        probe: Kind of probe; finetune trains the encoder's last blocks (`--grid.num_blocks`), too, and writes the
            tuned encoder to the folder `encoder` in `out`.
        label: Column of the manifests that holds the label.
        root: Folder that relative paths in the manifests start from (default: the manifest's own).
        num_frames: Frames of a clip (default: the encoder's).
        fps: Frames of the clip a second of video (default: every frame). Give the rate of pre-training.
        segments: Clips of a video, from equal parts of it, whose tokens the probe sees together; in training too
            (default: the protocol's, or 1).
        views: Squares along the longer side in the test, whose probabilities are averaged; 3 as published (default:
            the protocol's, or 1).
        layers: Blocks whose tokens the probe sees together, from 0 or -1 on (default: the protocol's, or the last).
        augment: Random views of each training video, beside the plain one: RandAugment, crops and erased boxes.
        cache: Folder that keeps the tokens, so that another sweep need not decode or encode.
        rank: Which of several processes this is; each computes its share of the cache, 0 trains the probe.
        world_size: How many processes there are.
        report: Also write report.html: confusion, classes, the worst clips, and where the probe looked.
        random_init: Also probe the same architecture with random weights, to compare.
        num_per_class: Train with this many clips of each class (default: all).
        grid: How the probe is trained; a held-out fifth of the training clips chooses from the grids. `--lr 1e-3
            3e-4` is short for `--grid.lr '[1e-3, 3e-4]'`; so is `--weight_decay`.
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
    extraction = {"batch_size": batch_size, "num_workers": num_workers, "precision": precision}
    options = {"num_per_class": num_per_class, "seed": seed, "device": device_of(device)}
    chances = {"decoder": decoder, "augment": augment, "seed": seed}
    shared = _shared(cache, Shard(rank, world_size))
    work = {"kind": probe, "out": out, "cache": shared, "extraction": extraction, "options": options}
    asked = (protocol, ClipChoice(num_frames, fps, segments, views, layers), grid)
    return _run(encoder, manifests, asked, chances=chances, random_init=random_init, page=report, work=work)


def _run(
    path: str,
    manifests: tuple[Manifest, Manifest],
    asked: tuple[str | None, ClipChoice, ProbeSettings],
    *,
    chances: dict[str, Any],
    random_init: bool,
    page: bool,
    work: dict[str, Any],
) -> Report:
    """The verb, with its arguments by what they are for: recipe, reading of clips, baseline, page, and work."""
    model, names, out, where = (
        load_encoder(path),
        manifests[0].label_names,
        work["out"],
        work["options"]["device"],
    )
    recipe = _recipe(model, manifests[0], asked, kind=work["kind"])
    cut: dict[str, Any] = {
        "num_frames": recipe.num_frames,
        "fps": recipe.fps,
        "frame_step": recipe.frame_step,
    }
    cut["layout"] = recipe.layout
    work = work | {"plan": ClipPlan(**cut, **chances)}
    work["options"] = work["options"] | {"settings": recipe.settings}
    out.mkdir(parents=True, exist_ok=True)
    networks = [model.to(where)] + ([random_twin(model, seed=chances["seed"])] if random_init else [])
    if work["cache"] is not None and work["cache"][1].rank:
        return _compute_share(networks, manifests, work)
    result, failures = _fitted(networks[0], manifests, **work)
    place = _save(out, result, names, model, path, **cut)
    if page:
        reading = {k: work["extraction"][k] for k in ("batch_size", "num_workers")}
        namer = open_namer(out, encoder=place, device=where)
        title = f"{result.kind} probe"
        write_page(out / PAGE, namer, manifests[1], title=title, decoder=chances["decoder"], **reading)
        log.info("page in %s", out / PAGE)
    baseline = None
    if random_init:
        baseline, more = _fitted(networks[1], manifests, **work)
        failures |= more
    found = _report(result, baseline, names, sorted(failures, key=lambda failure: failure.path))
    return replace(found, figures=found.figures | {"recipe": recipe.stored})


def _recipe(
    model: VideoEncoder,
    train: Manifest,
    asked: tuple[str | None, ClipChoice, ProbeSettings],
    *,
    kind: ProbeKind,
) -> Recipe:
    num_videos = sum(row.label >= 0 for row in train.rows)
    recipe = resolve_recipe(
        asked[0], model, asked[1], asked[2], num_classes=len(train.label_names), num_videos=num_videos
    )
    if kind == "finetune" and recipe.layout.levels is not None:
        raise ProbeError(
            "several layers with probe finetune, which trains the last block: drop --layers, or --protocol if it "
            "reads several."
        )
    return recipe


def _shared(cache: Path | None, shard: Shard) -> tuple[Path, Shard] | None:
    if cache is None and shard.world_size > 1:
        raise ProbeError("several processes share their work in a folder: give one with --cache.")
    return None if cache is None else (cache, shard)


def _save(
    out: Path, result: ProbeResult, names: tuple[str, ...], model: VideoEncoder, encoder: str, **clips: Any
) -> str:
    """Write the probe, and of a fine-tuned one its encoder, too; where its encoder is."""
    head = result.probe
    if isinstance(head, FinetunedProbe):
        encoder, model = str(out / "encoder"), head.tail.back_in(model)
        model.save_pretrained(encoder)
        head = head.head
    assert isinstance(head, StandardizedProbe)
    save_probe(out, head, card_of(result, names, model, encoder, **clips))
    return encoder


def _fitted(
    network: VideoEncoder,
    manifests: tuple[Manifest, Manifest],
    *,
    kind: ProbeKind,
    plan: ClipPlan,
    out: Path,
    cache: tuple[Path, Shard] | None,
    extraction: dict[str, Any],
    options: dict[str, Any],
) -> tuple[ProbeResult, set[ClipFailure]]:
    """A probe of one network, and the clips that could not be read."""
    train, val = manifests
    with tempfile.TemporaryDirectory(dir=out, ignore_cleanup_errors=True) as scratch:
        extraction = extraction | {"scratch": Path(scratch)}
        frozen = _frozen(network, kind, options)
        frames = plan.num_frames or network.config["num_frames"]
        tail = frozen.tail(num_frames=frames) if isinstance(frozen, Trunk) else None
        known, unseen = _tokens(network, frozen, manifests, plan, cache, extraction)
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
            tail=tail,
            **options,
        )
    return result, set(known.failures + unseen.failures)


def _frozen(network: VideoEncoder, kind: ProbeKind, options: dict[str, Any]) -> VideoEncoder | Trunk:
    """The part of a network that is not trained."""
    return Trunk(network, num_blocks=options["settings"].num_blocks) if kind == "finetune" else network


def _tokens(
    network: VideoEncoder,
    frozen: VideoEncoder | Trunk,
    manifests: tuple[Manifest, Manifest],
    plan: ClipPlan,
    cache: tuple[Path, Shard] | None,
    extraction: dict[str, Any],
) -> tuple[Features, Features]:
    """Tokens of the training and of the validation clips; those in the cache are not computed again."""
    found = []
    for manifest, training in zip(manifests, (True, False), strict=True):
        clips = plan.train(manifest, network) if training else plan.test(manifest, network)
        cached = None
        if cache is not None:
            key = plan.preprocessing(training=training) | {"precision": extraction["precision"]}
            cached = TokenFile(cache_folder(cache[0], frozen, manifest, key), len(clips), cache[1])
        layout = plan.train_layout if training else plan.layout
        found.append(extract_features(frozen, clips, layout=layout, cached=cached, **extraction))
    return found[0], found[1]


def _compute_share(
    networks: list[VideoEncoder], manifests: tuple[Manifest, Manifest], work: dict[str, Any]
) -> Report:
    """What a process does that is not the first: its share of the tokens."""
    for network in networks:
        frozen = _frozen(network, work["kind"], work["options"])
        _tokens(network, frozen, manifests, work["plan"], work["cache"], work["extraction"])
    shard = work["cache"][1]
    return Report(title="features", figures={"rank": shard.rank, "world_size": shard.world_size})


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
            "interval": result.interval,
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
