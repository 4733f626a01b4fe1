"""The verbs `vjepa probe` and `vjepa classify`."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange

from vjepa.checkpoints import load_encoder
from vjepa.data.manifest import Manifest, ManifestRow, read_manifest
from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError, StandardizedProbe
from vjepa.probes.cache import Shard, TokenFile, cache_folder
from vjepa.probes.clips import ClipPlan, eval_clips
from vjepa.probes.features import Features, Precision, extract_features, random_twin
from vjepa.probes.files import card_of, check_encoder, load_probe, save_probe
from vjepa.probes.finetune import FinetunedProbe
from vjepa.probes.protocol import fit_probe
from vjepa.probes.results import ProbeKind, ProbeResult
from vjepa.probes.trials import ProbeSettings
from vjepa.probes.trunk import Trunk
from vjepa.probes.views import ClipLayout, mean_probabilities
from vjepa.report import Report
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
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
    layers: tuple[int, ...] | None = None,
    augment: int = 0,
    cache: Path | None = None,
    rank: int = 0,
    world_size: int = 1,
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
        probe: Kind of probe; finetune trains the encoder's last blocks (`--grid.num_blocks`), too, and writes the
            tuned encoder to the folder `encoder` in `out`.
        label: Column of the manifests that holds the label.
        root: Folder that relative paths in the manifests start from (default: the manifest's own).
        num_frames: Frames of a clip (default: the encoder's).
        fps: Frames of the clip a second of video (default: every frame). Give the rate of pre-training.
        segments: Clips of a video, from equal parts of it, whose tokens the probe sees together; in training too.
        views: Squares along the longer side in the test, whose probabilities are averaged; 3 as published.
        layers: Blocks whose tokens the probe sees together, from 0 or -1 on (default: the last); 4 as V-JEPA 2's.
        augment: Random views of each training video, beside the plain one: RandAugment, crops and erased boxes.
        cache: Folder that keeps the tokens, so that another sweep need not decode or encode.
        rank: Which of several processes this is; each computes its share of the cache, 0 trains the probe.
        world_size: How many processes there are.
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
    plan = ClipPlan(num_frames, fps, decoder, ClipLayout(segments, views), augment, seed)
    model, where = load_encoder(encoder), _device(device)
    manifests = _labelled(train, val, root=root, label=label)
    out.mkdir(parents=True, exist_ok=True)
    shard = _checked(probe, layers, cache, Shard(rank, world_size))
    extraction = {"batch_size": batch_size, "num_workers": num_workers, "precision": precision}
    options = {"num_per_class": num_per_class, "settings": grid, "seed": seed, "device": where}
    shared = None if cache is None else (cache, shard)
    work: dict[str, Any] = {"kind": probe, "plan": plan, "out": out, "layers": layers, "cache": shared}
    work |= {"extraction": extraction, "options": options}
    networks = [model.to(where)] + ([random_twin(model, seed=seed)] if random_init else [])
    if shard.rank:
        return _compute_share(networks, manifests, **work)
    result, failures = _fitted(networks[0], manifests, **work)
    names, frames = manifests[0].label_names, num_frames or model.config["num_frames"]
    _save(out, result, names, model, encoder, num_frames=frames, fps=fps, layout=plan.layout, layers=layers)
    baseline = None
    if random_init:
        baseline, more = _fitted(networks[1], manifests, **work)
        failures |= more
    return _report(result, baseline, names, sorted(failures, key=lambda failure: failure.path))


def classify(
    *,
    probe: Path,
    videos: list[str],
    encoder: str | None = None,
    top: int = 5,
    batch_size: int = 16,
    device: Device = "auto",
    decoder: str = "auto",
) -> Report:
    """Label names and probabilities of videos.

    A video that cannot be read gets a line with the reason and the others go on; if none can be read, that is
    an error (exit code 2).

    Args:
        probe: Folder written by `vjepa probe`.
        videos: Video files.
        encoder: Folder or .ckpt of the probe's encoder (default: where it was when the probe was trained).
        top: How many labels of each video to name.
        batch_size: Videos the encoder takes at a time.
        device: Where to compute; auto takes a GPU if there is one.
        decoder: What reads the videos: auto, pyav, torchcodec, decord, frames, or a class path.
    """
    if top < 1:
        raise ProbeError(f"top {top}: give at least 1.")
    head, card = load_probe(probe)
    path = encoder or card.encoder
    if encoder is None and not Path(path).exists():
        raise ProbeError(f"the encoder of this probe is no longer at {path}. Name its place with --encoder.")
    model = load_encoder(path)
    check_encoder(card, model, path)
    manifest = Manifest(
        rows=tuple(ManifestRow(video) for video in videos), label_names=(), kind="videos", source="the list"
    )
    layout = ClipLayout(card.segments, card.views)
    clips = eval_clips(
        manifest, model, num_frames=card.num_frames, fps=card.fps, decoder=decoder, layout=layout
    )
    features = extract_features(
        model.to(_device(device)), clips, layers=card.layers, layout=layout, batch_size=batch_size
    )
    with torch.no_grad():
        tokens = rearrange(features.tokens.float(), "b (v n) d -> b 1 v n d", v=layout.views)
        shares = mean_probabilities(head, tokens)
    found = {
        videos[row]: [
            {"label": card.label_names[i], "probability": float(share[i])}
            for i in share.argsort(descending=True)[:top].tolist()
        ]
        for row, share in zip(features.index.tolist(), shares, strict=True)
    }
    reasons = {failure.path: failure.reason for failure in features.failures}
    return Report(
        title=f"{card.kind} probe of {len(card.label_names)} classes",
        rows=[_line(video, found.get(video, []), reasons.get(video, "")) for video in videos],
        figures={
            "predictions": found,
            "failures": [asdict(failure) for failure in features.failures],
        },
    )


def _line(video: str, labels: list[dict[str, Any]], reason: str) -> dict[str, str]:
    named = {f"{i}": f"{x['label']} {x['probability']:.3f}" for i, x in enumerate(labels, start=1)}
    return {"video": video} | (named or {"1": f"cannot be read: {reason}"})


def _checked(kind: ProbeKind, layers: tuple[int, ...] | None, cache: Path | None, shard: Shard) -> Shard:
    if layers is not None and kind == "finetune":
        raise ProbeError("layers with probe finetune, which trains the last block: drop --layers.")
    if cache is None and shard.world_size > 1:
        raise ProbeError("several processes share their work in a folder: give one with --cache.")
    return shard


def _save(
    out: Path, result: ProbeResult, names: tuple[str, ...], model: VideoEncoder, encoder: str, **clips: Any
) -> None:
    """Write the probe, and of a fine-tuned one its encoder, too."""
    head = result.probe
    if isinstance(head, FinetunedProbe):
        encoder, model = str(out / "encoder"), head.tail.back_in(model)
        model.save_pretrained(encoder)
        head = head.head
    assert isinstance(head, StandardizedProbe)
    save_probe(out, head, card_of(result, names, model, encoder, **clips))


def _device(device: Device) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise ProbeError("device cuda: this machine offers none to torch. Give --device cpu or auto.")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


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
    layers: tuple[int, ...] | None,
    cache: tuple[Path, Shard] | None,
    extraction: dict[str, Any],
    options: dict[str, Any],
) -> tuple[ProbeResult, set[ClipFailure]]:
    """A probe of one network, and the clips that could not be read."""
    train, val = manifests
    with tempfile.TemporaryDirectory(dir=out, ignore_cleanup_errors=True) as scratch:
        extraction = extraction | {"scratch": Path(scratch), "layers": layers}
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
            layers = extraction["layers"]
            arithmetic = {"precision": extraction["precision"], "layers": layers}
            key = plan.preprocessing(training=training) | arithmetic
            cached = TokenFile(cache_folder(cache[0], frozen, manifest, key), len(clips), cache[1])
        layout = plan.train_layout if training else plan.layout
        found.append(extract_features(frozen, clips, layout=layout, cached=cached, **extraction))
    return found[0], found[1]


def _compute_share(networks: list[VideoEncoder], manifests: tuple[Manifest, Manifest], **work: Any) -> Report:
    """What a process does that is not the first: its share of the tokens."""
    extraction = work["extraction"] | {"layers": work["layers"]}
    for network in networks:
        _tokens(
            network,
            _frozen(network, work["kind"], work["options"]),
            manifests,
            work["plan"],
            work["cache"],
            extraction,
        )
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
