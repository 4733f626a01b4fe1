"""A probe run: one label per video, from manifests or a folder, with a published protocol or without."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vjepa.checkpoints import load_encoder
from vjepa.data.manifests.rows import Manifest
from vjepa.features.encode import Precision
from vjepa.features.store import Ranks, RecordStore
from vjepa.features.tokens import ClipTokens, cache_folder, tokens_of
from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError
from vjepa.probes.classifier import open_classifier
from vjepa.probes.clips import eval_clips, training_clips
from vjepa.probes.devices import Device, device_of
from vjepa.probes.files import NetworkReference, ProbeCard, check_free, save_probe
from vjepa.probes.fitting.blocks import FinetunedProbe, FrozenBlocks
from vjepa.probes.fitting.selection import fit_probe
from vjepa.probes.fitting.trials import LabelledTokens, ProbeSettings
from vjepa.probes.kinds import check_kind
from vjepa.probes.manifests import LabelledVideos
from vjepa.probes.page import write_page
from vjepa.probes.random_init import random_init_like
from vjepa.probes.recipe import ClipChoice, Recipe, resolve_recipe
from vjepa.probes.results import ProbeResult
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

PAGE, TUNED_ENCODER = "report.html", "encoder"


@dataclass(frozen=True)
class Compute:
    """How and where a run computes.

    Args:
        seed: Seed of everything random.
        batch_size: Clips of one forward pass of the encoder.
        num_workers: Processes that decode videos.
        precision: Arithmetic of the encoder.
        device: Where to compute; auto uses a GPU if there is one.
        decoder: What reads the videos: auto, pyav, torchcodec, decord, frames, or a class path.
    """

    seed: int = 0
    batch_size: int = 32
    num_workers: int = 0
    precision: Precision = "fp32"
    device: Device = "auto"
    decoder: str = "auto"


@dataclass(frozen=True)
class TokenCache:
    """Where tokens are kept for further runs, and which process computes which of them.

    Args:
        cache: Folder that keeps the tokens, so that another sweep need not decode or encode.
        rank: Which of several processes this is; each computes its share of the cache, 0 trains the probe.
        world_size: How many processes there are.
    """

    cache: Path | None = None
    rank: int = 0
    world_size: int = 1

    @property
    def ranks(self) -> Ranks:
        """Which clips of the cache are this process's.

        Raises:
            ProbeError: If there are several processes and no cache for them to share.
        """
        ranks = Ranks(self.rank, self.world_size)
        if self.cache is None and self.world_size > 1:
            raise ProbeError("several processes share their work in a folder: give one with --cache.")
        return ranks


@dataclass(frozen=True)
class ProbeWork:
    """What a probe is trained on, and how."""

    encoder: str
    out: Path
    videos: LabelledVideos = field(default_factory=LabelledVideos)
    protocol: str | None = None
    probe: str = "attentive"
    clips: ClipChoice = field(default_factory=ClipChoice)
    grid: ProbeSettings = field(default_factory=ProbeSettings)
    random_init: bool = True
    page: bool = False
    tokens: TokenCache = field(default_factory=TokenCache)
    compute: Compute = field(default_factory=Compute)


@dataclass(frozen=True)
class ProbeRun:
    """The outcome of a run: the probe's result, that of the same architecture with random weights, and the recipe."""

    result: ProbeResult
    baseline: ProbeResult | None
    label_names: tuple[str, ...]
    failures: list[ClipFailure]
    recipe: dict[str, Any]


@dataclass(frozen=True)
class _Task:
    """The work with what follows from its encoder and its manifests."""

    work: ProbeWork
    manifests: tuple[Manifest, Manifest]
    recipe: Recipe


def run_probe(work: ProbeWork) -> ProbeRun | None:
    """Train a probe, test it once, and write it to `work.out`.

    Returns:
        The outcome; None in a process that only computes its share of the cache.
    """
    check_kind(work.probe)  # before the work
    check_free(work.out)
    manifests = train, _ = work.videos.manifests(seed=work.compute.seed)
    ranks, model = work.tokens.ranks, load_encoder(work.encoder).to(device_of(work.compute.device))
    task = _Task(work, manifests, _recipe(work, model, train))
    work.out.mkdir(parents=True, exist_ok=True)
    random = random_init_like(model, seed=work.compute.seed) if work.random_init else None
    if ranks.rank:
        for network in (model, random):
            if network is not None:
                with tempfile.TemporaryDirectory(dir=work.out, ignore_cleanup_errors=True) as scratch:
                    _tokens(task, _frozen(task, network), scratch=Path(scratch))
        return None
    result, failures = _fitted(task, model)
    place = _save(task, result, model)
    if work.page:
        _write_page(task, place, title=f"{result.kind} probe")
    baseline = None
    if random is not None:
        baseline, more = _fitted(task, random)
        failures |= more
    listed = sorted(failures, key=lambda failure: failure.path)
    return ProbeRun(result, baseline, train.label_names, listed, task.recipe.stored)


def _recipe(work: ProbeWork, model: VideoEncoder, train: Manifest) -> Recipe:
    recipe = resolve_recipe(
        work.protocol,
        model,
        work.clips,
        work.grid,
        num_classes=len(train.label_names),
        num_videos=sum(row.label >= 0 for row in train.rows),
    )
    if work.probe == "finetune" and recipe.spec.layers is not None:
        raise ProbeError(
            "several layers with probe finetune, which trains the last block: drop --layers, or --protocol if it "
            "reads several."
        )
    return recipe


def _fitted(task: _Task, network: VideoEncoder) -> tuple[ProbeResult, set[ClipFailure]]:
    """Train a probe of one network; also return the clips that could not be read."""
    work, spec, (train, val) = task.work, task.recipe.spec, task.manifests
    with tempfile.TemporaryDirectory(dir=work.out, ignore_cleanup_errors=True) as scratch:
        frozen = _frozen(task, network)
        tuned = None
        if isinstance(frozen, FrozenBlocks):
            tuned = frozen.tuned_blocks(num_frames=spec.num_frames, size=spec.size)
        known, unseen = _tokens(task, frozen, scratch=Path(scratch))
        result = fit_probe(
            work.probe,
            LabelledTokens.of(known, train),
            LabelledTokens.of(unseen, val),
            num_classes=len(train.label_names),
            num_views=spec.views,
            tuned_blocks=tuned,
            settings=task.recipe.settings,
            num_per_class=work.videos.num_per_class,
            seed=work.compute.seed,
            device=device_of(work.compute.device),
        )
    return result, set(known.failures + unseen.failures)


def _frozen(task: _Task, network: VideoEncoder) -> VideoEncoder | FrozenBlocks:
    """Return the part of a network that is not trained."""
    if task.work.probe != "finetune":
        return network
    return FrozenBlocks(network, num_blocks=task.recipe.settings.num_blocks)


def _tokens(
    task: _Task, frozen: VideoEncoder | FrozenBlocks, *, scratch: Path | None = None
) -> tuple[ClipTokens, ClipTokens]:
    """Return the tokens of the training and of the validation clips; those in the cache are not computed again."""
    work, compute, found = task.work, task.work.compute, []
    augment, decoder = work.clips.augment, compute.decoder
    for manifest, training in zip(task.manifests, (True, False), strict=True):
        if training:
            spec, drawn = task.recipe.spec.one_view(), {"augment": augment, "seed": compute.seed}
            clips = training_clips(manifest, spec, decoder=decoder, **drawn)
        else:
            spec, drawn = task.recipe.spec, {}
            clips = eval_clips(manifest, spec, decoder=decoder)
        folder = None
        if work.tokens.cache is not None:
            key = spec.to_json() | {"decoder": decoder, "precision": compute.precision}
            folder = cache_folder(work.tokens.cache, frozen, manifest, key | (drawn if augment else {}))
        store = RecordStore(folder, num_records=len(clips), scratch=scratch)
        found.append(
            tokens_of(
                frozen,
                clips,
                spec,
                store=store,
                ranks=work.tokens.ranks,
                batch_size=compute.batch_size,
                num_workers=compute.num_workers,
                precision=compute.precision,
            )
        )
    return found[0], found[1]


def _save(task: _Task, result: ProbeResult, model: VideoEncoder) -> str:
    """Write the probe, and the encoder of a fine-tuned one; return the place of the probe's encoder."""
    head, out, place = result.probe, task.work.out, str(Path(task.work.encoder).resolve())
    path = place
    if isinstance(head, FinetunedProbe):
        path, place, model = TUNED_ENCODER, str(out / TUNED_ENCODER), head.tuned_blocks.put_back(model)
        model.save_pretrained(place)
        head = head.head
    card = ProbeCard(
        kind=result.kind,
        label_names=task.manifests[0].label_names,
        clip=task.recipe.spec,
        encoder=NetworkReference.of(model, path),
        recipe={"settings": result.settings},
    )
    save_probe(out, head, card)
    return place


def _write_page(task: _Task, encoder: str, *, title: str) -> None:
    work, compute = task.work, task.work.compute
    classifier = open_classifier(
        work.out, encoder=encoder, probe_class=work.probe, device=device_of(compute.device)
    )
    write_page(
        work.out / PAGE,
        classifier,
        task.manifests[1],
        title=title,
        decoder=compute.decoder,
        batch_size=compute.batch_size,
        num_workers=compute.num_workers,
    )
    log.info("page in %s", work.out / PAGE)
