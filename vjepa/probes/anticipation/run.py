"""`vjepa probe --protocol ek100`: EPIC-KITCHENS-100, from annotations and videos to class-mean recall at 5."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from vjepa.checkpoints import load_encoder, load_predictor
from vjepa.commands.report import Report
from vjepa.models import Predictor, VideoEncoder
from vjepa.models.files import digest
from vjepa.probes.anticipation.clips import TRAIN_POINT, TRAIN_SECONDS, AnticipationClips, ForetellingCut
from vjepa.probes.anticipation.ek100 import ActionIds
from vjepa.probes.anticipation.ek100_annotations import EpicNames, EpicSplit, read_split, video_files
from vjepa.probes.anticipation.files import save_anticipation
from vjepa.probes.anticipation.fit import (
    TASKS,
    AnticipationNetworks,
    Reading,
    Recalls,
    fit_anticipation,
    measure_anticipation,
)
from vjepa.probes.base import ProbeError
from vjepa.probes.features import Precision, random_init_like
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.protocols import protocol
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

NAME = "ek100"
CHOSEN = "the head with the best action recall on the validation clips, as published"


@dataclass(frozen=True)
class AnticipationChoice:
    """What protocol ek100 alone needs.

    Args:
        predictor: Folder or .ckpt of the predictor (default: where the encoder is).
        mask_token: Which mask token stands for the future; 1 as published. A predictor of your own that was trained
            with one strategy has learned token 0 alone.
        seconds: From the end of a clip to the action, in the test.
        relative_to: Measure from the stop of the action, as the published code does, or from its start, as it says.
    """

    predictor: str | None = None
    mask_token: int = 1
    seconds: float = 1.0
    relative_to: Literal["start", "stop"] = "stop"


@dataclass(frozen=True)
class AnticipationWork:
    """What a run of the protocol is given, as the arguments of `vjepa probe` of these names."""

    encoder: str
    out: Path
    train: str | None
    val: str | None
    root: str | None
    num_frames: int | None
    fps: float | None
    random_init: bool
    grid: ProbeSettings
    seed: int
    batch_size: int
    num_workers: int
    precision: Precision
    device: torch.device
    decoder: str


def probe_anticipation(work: AnticipationWork, choice: AnticipationChoice) -> Report:
    """Train and test the probes of the protocol, and write the best of them.

    Raises:
        ProbeError: If files are missing, or nothing can be read.
    """
    if work.train is None or work.val is None or work.root is None:
        raise ProbeError(
            f"protocol {NAME} needs --train EPIC_100_train.csv, --val EPIC_100_validation.csv and the folder of the "
            "videos as --root."
        )
    encoder = load_encoder(work.encoder).to(work.device).eval()
    predictor = load_predictor(choice.predictor or work.encoder).to(work.device).eval()
    if not isinstance(predictor, Predictor):
        raise ProbeError(
            f"{choice.predictor or work.encoder} predicts by actions. Give another --anticipation.predictor."
        )
    if predictor.encoder_dim != encoder.embed_dim:
        raise ProbeError(
            f"the predictor takes tokens of width {predictor.encoder_dim}, the encoder gives {encoder.embed_dim}. "
            "Give the predictor that was trained with it as --anticipation.predictor."
        )
    videos = video_files(Path(work.root))
    train, val = (read_split(Path(file), videos) for file in (work.train, work.val))
    ids = ActionIds.of(train.actions)
    names, known = EpicNames.of(ids, Path(work.train).parent), val.known_to(ids)
    plan = protocol(NAME)
    settings = plan.settings(work.grid, len(train))
    if encoder.embed_dim % (settings.num_heads or 1):
        raise ProbeError(
            f"{settings.num_heads} attention heads on width {encoder.embed_dim}. Give a divisor as --grid.num_heads."
        )
    cut = ForetellingCut(
        num_frames=work.num_frames or plan.num_frames,
        fps=work.fps or 8.0,
        seconds=choice.seconds,
        relative_to=choice.relative_to,
        size=encoder.config["img_size"],
        decoder=work.decoder,
    )
    best, heads, failures = _fitted(encoder, predictor, (train, known), ids, cut, settings, work, choice)
    recipe = _recipe(cut, settings, choice, plan.epochs, plan.departures)
    card = {f"{task}_names": getattr(names, task) for task in TASKS} | {
        "encoder": str(Path(work.encoder).resolve()),
        "encoder_digest": digest(encoder),
        "predictor": str(Path(choice.predictor or work.encoder).resolve()),
        "predictor_digest": digest(predictor),
        "recipe": recipe,
    }
    save_anticipation(work.out, best.probe, card)
    baseline = None
    if work.random_init:
        twins = random_init_like(encoder, seed=work.seed), _predictor_twin(predictor, work.seed)
        baseline, _, more = _fitted(*twins, (train, known), ids, cut, settings, work, choice)
        failures |= more
    report = _report(best, heads, baseline, ids, failures)
    counts = {"num_train": len(train), "num_val": len(known), "num_val_unseen_actions": len(val) - len(known)}
    return Report(report.title, report.rows, report.figures | counts | {"recipe": recipe})


def _fitted(
    encoder: VideoEncoder,
    predictor: Predictor,
    splits: tuple[EpicSplit, EpicSplit],
    ids: ActionIds,
    cut: ForetellingCut,
    settings: ProbeSettings,
    work: AnticipationWork,
    choice: AnticipationChoice,
) -> tuple[Recalls, list[Recalls], set[ClipFailure]]:
    """The best head on these networks, all heads, and what could not be read."""
    networks = AnticipationNetworks(encoder, predictor, cut.fps, choice.mask_token, work.precision == "bf16")
    reading = Reading(work.batch_size, work.num_workers)
    train = AnticipationClips(splits[0], cut, training=True, seed=work.seed)
    val = AnticipationClips(splits[1], cut, training=False)
    trained, failures = fit_anticipation(
        networks, train, ids, settings=settings, seed=work.seed, reading=reading
    )
    for head in trained:
        head.eval()
    heads, more = measure_anticipation(networks, trained, val, ids, settings=settings, reading=reading)
    return max(heads, key=lambda head: head.action), heads, failures | more


def _predictor_twin(predictor: Predictor, seed: int) -> Predictor:
    """A predictor of the same make with fresh random weights, on the same device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        twin = Predictor(**predictor.config)
    return twin.to(next(predictor.parameters()).device).eval()


def _recipe(
    cut: ForetellingCut,
    settings: ProbeSettings,
    choice: AnticipationChoice,
    epochs: int,
    departures: tuple[str, ...],
) -> dict[str, Any]:
    used = ("lr", "weight_decay", "num_steps", "batch_size", "num_heads", "depth")
    return {
        "protocol": NAME,
        **asdict(cut),
        "mask_token": choice.mask_token,
        "train_seconds": TRAIN_SECONDS,
        "train_point": TRAIN_POINT,
        **{key: value for key, value in asdict(settings).items() if key in used},
        "epochs": epochs,
        "chosen_by": CHOSEN,
        "departures": departures,
    }


def _report(
    best: Recalls,
    heads: list[Recalls],
    baseline: Recalls | None,
    ids: ActionIds,
    failures: set[ClipFailure],
) -> Report:
    classes = dict(zip(TASKS, (len(ids.verbs), len(ids.nouns), len(ids.actions)), strict=True))
    compared = {"encoder": best, "random init": baseline}
    rows = [
        {"features": name, **{f"{task} recall@5": getattr(found, task) for task in TASKS}}
        for name, found in compared.items()
        if found is not None
    ]
    figures: dict[str, Any] = {f"{task}_recall5": getattr(best, task) for task in TASKS}
    figures |= {f"random_init_{task}_recall5": getattr(baseline, task, None) for task in TASKS}
    figures |= {
        "chance": {task: min(1.0, 5 / count) for task, count in classes.items()},
        "chosen": best.setting,
        "heads": [head.setting | {task: getattr(head, task) for task in TASKS} for head in heads],
        "num_classes": classes,
        "num_failures": len(failures),
        "failures": [asdict(f) for f in sorted(failures, key=lambda f: (f.path, f.reason))],
    }
    if failures:
        log.warning("%d videos or clips could not be read: see failures in result.json", len(failures))
    return Report("anticipation of actions, class-mean recall at 5", rows, figures)
