"""An anticipation run on EPIC-KITCHENS-100: from annotations and videos to class-mean recall at 5."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vjepa.checkpoints import load_encoder, load_predictor
from vjepa.features.clip_spec import ClipSpec
from vjepa.models import Predictor, VideoEncoder
from vjepa.probes.anticipation.clips import TRAIN_POINT, TRAIN_SECONDS, AnticipationClips, AnticipationTask
from vjepa.probes.anticipation.ek100_annotations import (
    ActionIds,
    EpicNames,
    EpicSplit,
    read_split,
    video_files,
)
from vjepa.probes.anticipation.fit import (
    AnticipationNetworks,
    Reading,
    Recalls,
    fit_anticipation,
    measure_anticipation,
)
from vjepa.probes.base import ProbeError
from vjepa.probes.devices import device_of
from vjepa.probes.files import ANTICIPATION, NetworkReference, ProbeCard, check_free, save_probe
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.protocols import Protocol, protocol
from vjepa.probes.random_init import random_init_like
from vjepa.probes.run import ProbeWork
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

EK100 = "ek100"
FPS = 8.0  # of the published clips
CHOSEN = "the head with the best action recall on the validation clips, as published"


@dataclass(frozen=True)
class AnticipationChoice:
    """What protocol ek100 alone needs.

    Args:
        predictor: Folder or .ckpt of the predictor (default: where the encoder is).
        mask_token: Which mask token stands for the future; 1 as published. A predictor of your own that was trained
            with one strategy has only learned token 0.
        seconds: Time from the end of a clip to the action, in the test.
        relative_to: Measure from the stop of the action, as the published code does, or from its start, as its
            documentation says.
    """

    predictor: str | None = None
    mask_token: int = 1
    seconds: float = 1.0
    relative_to: Literal["start", "stop"] = "stop"


@dataclass(frozen=True)
class AnticipationRun:
    """The outcome of a run: all heads, the best of them, the best with random networks, and what it was run on."""

    best: Recalls
    heads: list[Recalls]
    baseline: Recalls | None
    ids: ActionIds
    failures: set[ClipFailure]
    counts: dict[str, int]
    recipe: dict[str, Any]


@dataclass(frozen=True)
class _Task:
    """The work with what follows from its networks and its annotations."""

    work: ProbeWork
    choice: AnticipationChoice
    splits: tuple[EpicSplit, EpicSplit]
    ids: ActionIds
    clips: AnticipationTask
    settings: ProbeSettings


def run_anticipation(work: ProbeWork, choice: AnticipationChoice) -> AnticipationRun:
    """Train and test the probes of the protocol, and write the best of them.

    Raises:
        ProbeError: If files are missing, or nothing can be read.
    """
    if work.videos.train is None or work.videos.val is None or work.videos.root is None:
        raise ProbeError(
            f"protocol {EK100} needs --train EPIC_100_train.csv, --val EPIC_100_validation.csv and the folder of the "
            "videos as --root."
        )
    check_free(work.out)
    encoder, predictor = _networks(work, choice)
    videos = video_files(Path(work.videos.root))
    train, val = (read_split(Path(file), videos) for file in (work.videos.train, work.videos.val))
    ids = ActionIds.of(train.actions)
    names, known = EpicNames.of(ids, Path(work.videos.train).parent), val.known_to(ids)
    plan = protocol(EK100)
    task = _Task(
        work=work,
        choice=choice,
        splits=(train, known),
        ids=ids,
        clips=_clips(work, choice, plan, encoder),
        settings=_settings(work, plan, len(train), encoder),
    )
    best, heads, failures = _fitted(task, encoder, predictor)
    recipe = _recipe(task, plan)
    place = choice.predictor or work.encoder
    card = ProbeCard(
        kind=ANTICIPATION,
        label_names=names.action,
        clip=task.clips.spec,
        encoder=NetworkReference.of(encoder, str(Path(work.encoder).resolve())),
        predictor=NetworkReference.of(predictor, str(Path(place).resolve())),
        task_names=asdict(names),
        recipe=recipe,
    )
    save_probe(work.out, best.probe, card)
    baseline = None
    if work.random_init:
        seed = work.compute.seed
        untrained = random_init_like(encoder, seed=seed), random_init_like(predictor, seed=seed)
        baseline, _, more = _fitted(task, *untrained)
        failures |= more
    counts = {"num_train": len(train), "num_val": len(known), "num_val_unseen_actions": len(val) - len(known)}
    return AnticipationRun(best, heads, baseline, ids, failures, counts, recipe)


def _networks(work: ProbeWork, choice: AnticipationChoice) -> tuple[VideoEncoder, Predictor]:
    device, place = device_of(work.compute.device), choice.predictor or work.encoder
    encoder = load_encoder(work.encoder).to(device).eval()
    predictor = load_predictor(place).to(device).eval()
    if not isinstance(predictor, Predictor):
        raise ProbeError(f"{place} predicts by actions. Give another --anticipation.predictor.")
    if predictor.encoder_dim != encoder.embed_dim:
        raise ProbeError(
            f"the predictor takes tokens of width {predictor.encoder_dim}, the encoder gives {encoder.embed_dim}. "
            "Give the predictor that was trained with it as --anticipation.predictor."
        )
    return encoder, predictor


def _clips(
    work: ProbeWork, choice: AnticipationChoice, plan: Protocol, encoder: VideoEncoder
) -> AnticipationTask:
    size = encoder.config["img_size"]
    spec = ClipSpec(
        num_frames=work.clips.num_frames or plan.num_frames,
        fps=work.clips.fps or FPS,
        size=(size, size) if isinstance(size, int) else size,
    )
    return AnticipationTask(spec, choice.seconds, choice.relative_to, work.compute.decoder)


def _settings(work: ProbeWork, plan: Protocol, num_train: int, encoder: VideoEncoder) -> ProbeSettings:
    settings = plan.settings(work.grid, num_train)
    if encoder.embed_dim % (settings.num_heads or 1):
        raise ProbeError(
            f"{settings.num_heads} attention heads on width {encoder.embed_dim}. Give a divisor as --grid.num_heads."
        )
    return settings


def _fitted(
    task: _Task, encoder: VideoEncoder, predictor: Predictor
) -> tuple[Recalls, list[Recalls], set[ClipFailure]]:
    """Return the best head on these networks, all heads, and the clips that could not be read."""
    compute, settings, fps = task.work.compute, task.settings, task.clips.spec.fps
    assert fps is not None
    networks = AnticipationNetworks(encoder, predictor, fps, task.choice.mask_token, compute.precision)
    reading = Reading(compute.batch_size, compute.num_workers)
    train = AnticipationClips(task.splits[0], task.clips, training=True, seed=compute.seed)
    val = AnticipationClips(task.splits[1], task.clips, training=False)
    trained, failures = fit_anticipation(
        networks, train, task.ids, settings=settings, seed=compute.seed, reading=reading
    )
    for head in trained:
        head.eval()
    heads, more = measure_anticipation(networks, trained, val, task.ids, settings=settings, reading=reading)
    return max(heads, key=lambda head: head.action), heads, failures | more


def _recipe(task: _Task, plan: Protocol) -> dict[str, Any]:
    used = ("lr", "weight_decay", "num_steps", "batch_size", "num_heads", "depth")
    spec = task.clips.spec
    height, width = spec.size
    return {
        "protocol": EK100,
        "num_frames": spec.num_frames,
        "fps": spec.fps,
        "seconds": task.clips.seconds,
        "relative_to": task.clips.relative_to,
        "size": height if height == width else spec.size,
        "decoder": task.clips.decoder,
        "mask_token": task.choice.mask_token,
        "train_seconds": TRAIN_SECONDS,
        "train_point": TRAIN_POINT,
        **{key: value for key, value in asdict(task.settings).items() if key in used},
        "epochs": plan.epochs,
        "chosen_by": CHOSEN,
        "departures": plan.departures,
    }
