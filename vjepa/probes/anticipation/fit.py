"""Training of anticipation probes: a grid of heads on clips that are drawn, encoded and foretold at each step."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from vjepa.data.loading.order import SampleKey
from vjepa.models import Predictor, VideoEncoder
from vjepa.optim import Cosine
from vjepa.probes.anticipation.clips import AnticipationBatch, AnticipationClips, collate_anticipation
from vjepa.probes.anticipation.ek100 import ActionIds, class_mean_recall
from vjepa.probes.anticipation.ek100_annotations import labels_of
from vjepa.probes.anticipation.probe import ActionScores, AnticipationProbe, anticipate, anticipation_loss
from vjepa.probes.base import ProbeError
from vjepa.probes.fitting.attentive import heads_for, points_of
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

CLIPS_A_GPU = 2  # whose losses the published code sums; gradients are then averaged over its GPUs
NOTICE_SECONDS = 60.0  # between two lines of progress
TASKS = ("verb", "noun", "action")


@dataclass(frozen=True)
class AnticipationNetworks:
    """Frozen networks in eval mode, on one device: clips to tokens of what is seen and what comes.

    `mask_token` of the predictor that stands for the future; `fps` of the clips; `bf16` computes in autocast.
    """

    encoder: VideoEncoder
    predictor: Predictor
    fps: float
    mask_token: int = 1
    bf16: bool = False

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.encoder.parameters()).device

    def autocast(self) -> torch.autocast:
        """The arithmetic of networks and probes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def tokens(self, batch: AnticipationBatch) -> Float[Tensor, "b n d"]:
        """Tokens of the clips, and after them one tubelet's at the time of the action."""
        tokens = anticipate(
            self.encoder,
            self.predictor,
            batch.video.to(self.device),
            batch.seconds.to(self.device),
            fps=self.fps,
            mask_token=self.mask_token,
        )
        if not tokens.isfinite().all():
            raise ProbeError(
                "encoder and predictor give tokens that are not finite. Use an earlier checkpoint."
            )
        return tokens


@dataclass(frozen=True)
class Recalls:
    """A trained head and its class-mean recall at 5 on the validation clips."""

    setting: dict[str, float]
    probe: AnticipationProbe
    verb: float
    noun: float
    action: float


@dataclass(frozen=True)
class Reading:
    """How clips are read: `batch_size` of one forward, `num_workers` that decode."""

    batch_size: int
    num_workers: int


def fit_anticipation(
    networks: AnticipationNetworks,
    train: AnticipationClips,
    ids: ActionIds,
    *,
    settings: ProbeSettings,
    seed: int,
    reading: Reading,
) -> tuple[list[AnticipationProbe], set[ClipFailure]]:
    """Heads of every pair of learning rate and weight decay, trained on the same clips (spec 6.5).

    AdamW with one group a head, so with decay on biases and norms, a cosine to 0 and no warm-up, as published.

    Args:
        networks: The frozen networks.
        train: Clips of training, each epoch drawn anew.
        ids: Class ids.
        settings: The grid, with `num_steps`.
        seed: Of the first weights and the order.
        reading: How clips are read.
    """
    assert settings.num_steps is not None
    points = points_of(settings)
    heads = _heads(networks, ids, settings, seed, count=len(points))
    groups: list[dict[str, Any]] = [
        {"params": list(head.parameters()), **point} for head, point in zip(heads, points, strict=True)
    ]
    optimizer, cosine = torch.optim.AdamW(groups), Cosine(start=1.0, end=0.0)
    labels, failures = torch.tensor(labels_of(train.split, ids)), set[ClipFailure]()
    steps = list(_steps(len(train), settings, seed, reading.batch_size))
    batches = _loader(train, [keys for step in steps for keys in step], reading)
    noticed, found = time.monotonic(), iter(batches)
    for number, step in enumerate(steps):
        for group, point in zip(optimizer.param_groups, points, strict=True):
            group["lr"] = point["lr"] * cosine.value(number - 1, settings.num_steps)
        optimizer.zero_grad()
        for batch in itertools.islice(found, len(step)):
            failures.update(batch.failures)
            _learn(networks, heads, batch, labels, share=CLIPS_A_GPU / settings.batch_size)
        optimizer.step()
        if time.monotonic() - noticed > NOTICE_SECONDS:
            noticed = time.monotonic()
            log.info("step %d of %d", number + 1, settings.num_steps)
    return heads, failures


def _learn(
    networks: AnticipationNetworks,
    heads: list[AnticipationProbe],
    batch: AnticipationBatch,
    labels: Tensor,
    *,
    share: float,
) -> None:
    """Adds a batch's gradients to those of all heads."""
    if not len(batch.index):
        return
    verb, noun, action = labels[batch.index].to(networks.device).unbind(dim=1)
    with networks.autocast():
        tokens = networks.tokens(batch)
        for head in heads:
            scores = head(tokens)
            loss = anticipation_loss(scores, verb=verb, noun=noun, action=action)
            (
                share * loss
            ).backward()  # head by head: their graphs share nothing, and need not lie side by side


@torch.no_grad()
def measure_anticipation(
    networks: AnticipationNetworks,
    heads: list[AnticipationProbe],
    val: AnticipationClips,
    ids: ActionIds,
    *,
    settings: ProbeSettings,
    reading: Reading,
) -> tuple[list[Recalls], set[ClipFailure]]:
    """Class-mean recall at 5 of every head, over the classes that occur among the clips that can be read.

    Raises:
        ProbeError: If no clip can be read.
    """
    rows = list(range(len(val)))
    keys = [
        [SampleKey(0, i) for i in rows[n : n + reading.batch_size]]
        for n in range(0, len(rows), reading.batch_size)
    ]
    failures, index = set[ClipFailure](), []
    scored: list[list[ActionScores]] = [[] for _ in heads]
    for batch in _loader(val, keys, reading):
        failures.update(batch.failures)
        if not len(batch.index):
            continue
        index.append(batch.index)
        with networks.autocast():
            tokens = networks.tokens(batch)
            for head, found in zip(heads, scored, strict=True):
                scores = head(tokens)
                found.append(ActionScores(*(getattr(scores, task).float().cpu() for task in TASKS)))
    if not index:
        reasons = "; ".join(f"{f.path} ({f.reason})" for f in sorted(failures, key=lambda f: f.path)[:5])
        raise ProbeError(f"none of the {len(val)} clips of {val.split.source} can be read: {reasons}.")
    truth = torch.tensor(labels_of(val.split, ids))[torch.cat(index)].unbind(dim=1)
    results = []
    for head, point, found in zip(heads, points_of(settings), scored, strict=True):
        recall = {
            task: class_mean_recall(torch.cat([getattr(s, task) for s in found]), label)
            for task, label in zip(TASKS, truth, strict=True)
        }
        results.append(Recalls(setting=point, probe=head, **recall))
    return results, failures


def _heads(
    networks: AnticipationNetworks, ids: ActionIds, settings: ProbeSettings, seed: int, *, count: int
) -> list[AnticipationProbe]:
    """Heads with the same first weights, drawn by `seed`."""
    width = networks.encoder.embed_dim
    heads = []
    for _ in range(count):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            head = AnticipationProbe(
                embed_dim=width,
                num_verbs=len(ids.verbs),
                num_nouns=len(ids.nouns),
                num_actions=len(ids.actions),
                num_heads=settings.num_heads or heads_for(width),
                depth=settings.depth,
            )
        heads.append(head.to(networks.device))
    return heads


def _steps(
    num_clips: int, settings: ProbeSettings, seed: int, at_once: int
) -> Iterator[list[list[SampleKey]]]:
    """The clips of each step, in parts of at most `at_once`: epoch after epoch, each in a new order."""
    generator = torch.Generator().manual_seed(seed)
    stream = (
        SampleKey(epoch, row)
        for epoch in itertools.count()
        for row in torch.randperm(num_clips, generator=generator).tolist()
    )
    assert settings.num_steps is not None
    for _ in range(settings.num_steps):
        step = list(itertools.islice(stream, settings.batch_size))
        yield [step[i : i + at_once] for i in range(0, len(step), at_once)]


def _loader(
    clips: AnticipationClips, keys: list[list[SampleKey]], reading: Reading
) -> DataLoader[AnticipationBatch]:
    return DataLoader(
        clips,  # type: ignore[arg-type]  # gives samples, which are collated into batches
        batch_sampler=keys,
        num_workers=reading.num_workers,
        collate_fn=collate_anticipation,
        generator=torch.Generator(),  # else the loader draws from the random state of the process
    )
