"""`vjepa probe` of one label a video: a manifest or a folder, by a published protocol or by none."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from vjepa.checkpoints import load_encoder
from vjepa.commands.report import Report
from vjepa.data.manifests.rows import Manifest
from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError, StandardizedProbe
from vjepa.probes.cache import Shard, TokenFile, cache_folder
from vjepa.probes.classifier import open_classifier
from vjepa.probes.clips import ClipPlan
from vjepa.probes.features import Features, Precision, extract_features, random_init_like
from vjepa.probes.files import card_of, save_probe
from vjepa.probes.fitting.blocks import FrozenBlocks
from vjepa.probes.fitting.finetune import FinetunedProbe
from vjepa.probes.fitting.selection import fit_probe
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.folder import labelled_manifests
from vjepa.probes.page import write_page
from vjepa.probes.recipe import ClipChoice, Recipe, resolve_recipe
from vjepa.probes.results import ProbeKind, ProbeResult
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

PAGE = "report.html"


@dataclass(frozen=True)
class LabelledWork:
    """What a probe is trained on, and how: the arguments of `vjepa probe` of these names."""

    encoder: str
    out: Path
    train: str | None
    val: str | None
    folder: str | None
    val_share: float
    protocol: str | None
    probe: ProbeKind
    label: str
    root: str | None
    num_frames: int | None
    fps: float | None
    segments: int | None
    views: int | None
    layers: tuple[int, ...] | None
    augment: int
    cache: Path | None
    rank: int
    world_size: int
    random_init: bool
    report: bool
    num_per_class: int | None
    grid: ProbeSettings
    seed: int
    batch_size: int
    num_workers: int
    precision: Precision
    device: torch.device
    decoder: str

    @property
    def shard(self) -> Shard:
        """Which clips of the cache are this process's.

        Raises:
            ProbeError: If there are several processes and no cache for them to share.
        """
        shard = Shard(self.rank, self.world_size)
        if self.cache is None and shard.world_size > 1:
            raise ProbeError("several processes share their work in a folder: give one with --cache.")
        return shard


@dataclass(frozen=True)
class _Run:
    """The work with what follows from its encoder and its manifests."""

    work: LabelledWork
    manifests: tuple[Manifest, Manifest]
    recipe: Recipe
    plan: ClipPlan


def probe_labelled(work: LabelledWork) -> Report:
    """Train a probe, test it once, and write it; the report compares it with a random encoder's."""
    train, val = labelled_manifests(
        train=work.train,
        val=work.val,
        folder=work.folder,
        val_share=work.val_share,
        root=work.root,
        label=work.label,
        seed=work.seed,
    )
    shard, model = work.shard, load_encoder(work.encoder).to(work.device)
    recipe = _recipe(work, model, train)
    plan = ClipPlan(
        num_frames=recipe.num_frames,
        fps=recipe.fps,
        frame_step=recipe.frame_step,
        layout=recipe.layout,
        decoder=work.decoder,
        augment=work.augment,
        seed=work.seed,
    )
    run = _Run(work, (train, val), recipe, plan)
    work.out.mkdir(parents=True, exist_ok=True)
    twin = random_init_like(model, seed=work.seed) if work.random_init else None
    if shard.rank:
        return _compute_share(run, [model] if twin is None else [model, twin])
    result, failures = _fitted(run, model)
    place = _save(run, result, model)
    if work.report:
        _write_page(run, place, title=f"{result.kind} probe")
    baseline = None
    if twin is not None:
        baseline, more = _fitted(run, twin)
        failures |= more
    found = _report(result, baseline, train.label_names, sorted(failures, key=lambda failure: failure.path))
    return replace(found, figures=found.figures | {"recipe": recipe.stored})


def _recipe(work: LabelledWork, model: VideoEncoder, train: Manifest) -> Recipe:
    choice = ClipChoice(work.num_frames, work.fps, work.segments, work.views, work.layers)
    recipe = resolve_recipe(
        work.protocol,
        model,
        choice,
        work.grid,
        num_classes=len(train.label_names),
        num_videos=sum(row.label >= 0 for row in train.rows),
    )
    if work.probe == "finetune" and recipe.layout.levels is not None:
        raise ProbeError(
            "several layers with probe finetune, which trains the last block: drop --layers, or --protocol if it "
            "reads several."
        )
    return recipe


def _fitted(run: _Run, network: VideoEncoder) -> tuple[ProbeResult, set[ClipFailure]]:
    """A probe of one network, and the clips that could not be read."""
    work, (train, val) = run.work, run.manifests
    with tempfile.TemporaryDirectory(dir=work.out, ignore_cleanup_errors=True) as scratch:
        frozen = _frozen(run, network)
        frames = run.plan.num_frames or network.config["num_frames"]
        tuned_blocks = frozen.tuned_blocks(num_frames=frames) if isinstance(frozen, FrozenBlocks) else None
        known, unseen = _tokens(run, network, frozen, scratch=Path(scratch))
        result = fit_probe(
            work.probe,
            known.tokens,
            known.labels(train),
            unseen.tokens,
            unseen.labels(val),
            num_classes=len(train.label_names),
            groups=known.groups(train),
            train_videos=known.index,
            num_views=run.plan.layout.views,
            tuned_blocks=tuned_blocks,
            settings=run.recipe.settings,
            num_per_class=work.num_per_class,
            seed=work.seed,
            device=work.device,
        )
    return result, set(known.failures + unseen.failures)


def _frozen(run: _Run, network: VideoEncoder) -> VideoEncoder | FrozenBlocks:
    """The part of a network that is not trained."""
    return (
        FrozenBlocks(network, num_blocks=run.recipe.settings.num_blocks)
        if run.work.probe == "finetune"
        else network
    )


def _tokens(
    run: _Run, network: VideoEncoder, frozen: VideoEncoder | FrozenBlocks, *, scratch: Path | None = None
) -> tuple[Features, Features]:
    """Tokens of the training and of the validation clips; those in the cache are not computed again."""
    work, plan, found = run.work, run.plan, []
    for manifest, training in zip(run.manifests, (True, False), strict=True):
        clips = plan.train(manifest, network) if training else plan.test(manifest, network)
        cached = None
        if work.cache is not None:
            key = plan.preprocessing(training=training) | {"precision": work.precision}
            cached = TokenFile(cache_folder(work.cache, frozen, manifest, key), len(clips), work.shard)
        found.append(
            extract_features(
                frozen,
                clips,
                layout=plan.train_layout if training else plan.layout,
                cached=cached,
                batch_size=work.batch_size,
                num_workers=work.num_workers,
                precision=work.precision,
                scratch=scratch,
            )
        )
    return found[0], found[1]


def _compute_share(run: _Run, networks: list[VideoEncoder]) -> Report:
    """What a process does that is not the first: its share of the tokens."""
    for network in networks:
        _tokens(run, network, _frozen(run, network))
    shard = run.work.shard
    return Report(title="features", figures={"rank": shard.rank, "world_size": shard.world_size})


def _save(run: _Run, result: ProbeResult, model: VideoEncoder) -> str:
    """Write the probe, and of a fine-tuned one its encoder, too; where its encoder is."""
    head, encoder, recipe = result.probe, run.work.encoder, run.recipe
    if isinstance(head, FinetunedProbe):
        encoder, model = str(run.work.out / "encoder"), head.tuned_blocks.put_back(model)
        model.save_pretrained(encoder)
        head = head.head
    assert isinstance(head, StandardizedProbe)
    card = card_of(
        result,
        run.manifests[0].label_names,
        model,
        encoder,
        num_frames=recipe.num_frames,
        fps=recipe.fps,
        frame_step=recipe.frame_step,
        layout=recipe.layout,
    )
    save_probe(run.work.out, head, card)
    return encoder


def _write_page(run: _Run, encoder: str, *, title: str) -> None:
    work = run.work
    classifier = open_classifier(work.out, encoder=encoder, device=work.device)
    write_page(
        work.out / PAGE,
        classifier,
        run.manifests[1],
        title=title,
        decoder=work.decoder,
        batch_size=work.batch_size,
        num_workers=work.num_workers,
    )
    log.info("page in %s", work.out / PAGE)


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
