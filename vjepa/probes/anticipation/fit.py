"""Training of anticipation probes: a grid of heads on clips that are drawn, encoded and predicted at each step."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader

from vjepa.data.loading.dataset import collate
from vjepa.data.loading.order import SampleKey
from vjepa.data.loading.workers import LOOK_SECONDS, from_workers
from vjepa.features.encode import Precision, autocast
from vjepa.models import Predictor, VideoEncoder
from vjepa.optim import Cosine
from vjepa.probes.anticipation.clips import AnticipationClips
from vjepa.probes.anticipation.ek100_annotations import TASKS, ActionIds, class_mean_recall
from vjepa.probes.anticipation.probe import ActionScores, AnticipationProbe, anticipate, anticipation_loss
from vjepa.probes.base import ProbeError
from vjepa.probes.fitting.side_by_side import heads_for
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.random_init import seeded
from vjepa.types import ClipBatch, ClipFailure

log = logging.getLogger(__name__)

CLIPS_PER_GPU = 2  # the published code sums their losses; the gradients are then averaged over its GPUs
NOTICE_SECONDS = 60.0  # between two lines of progress


@dataclass(frozen=True)
class AnticipationNetworks:
    """Frozen networks in eval mode, on one device: from clips to tokens of what is seen and what follows.

    `mask_token` is the one of the predictor that stands for the future; `fps` that of the clips.
    """

    encoder: VideoEncoder
    predictor: Predictor
    fps: float
    mask_token: int = 1
    precision: Precision = "fp32"

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return next(self.encoder.parameters()).device

    def tokens(self, batch: ClipBatch) -> Float[Tensor, "b n d"]:
        """Return the tokens of the clips, followed by one tubelet's at the time of the action."""
        tokens = anticipate(
            self.encoder,
            self.predictor,
            batch.video.to(self.device),
            batch.extra("seconds").to(self.device),
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
    """How clips are read: `batch_size` of one forward pass, `num_workers` that decode."""

    batch_size: int
    num_workers: int

    def batches(self, clips: AnticipationClips, keys: list[list[SampleKey]]) -> Iterator[ClipBatch]:
        """Yield batches of the clips with these keys."""
        left = deque(keys)

        def rest() -> DataLoader[ClipBatch]:
            return DataLoader(
                clips,  # type: ignore[arg-type]  # gives samples, which are collated into batches
                batch_sampler=list(left),
                num_workers=self.num_workers,
                collate_fn=collate,
                timeout=LOOK_SECONDS if self.num_workers else 0,
                generator=torch.Generator(),  # else the loader draws from the random state of the process
            )

        for batch in from_workers(rest, lambda: clips.split.videos[left[0][0].index]):
            left.popleft()
            yield batch

    def chunks(self, keys: list[SampleKey]) -> list[list[SampleKey]]:
        """Split keys into batches."""
        return [keys[i : i + self.batch_size] for i in range(0, len(keys), self.batch_size)]


def fit_anticipation(
    networks: AnticipationNetworks,
    train: AnticipationClips,
    ids: ActionIds,
    *,
    settings: ProbeSettings,
    seed: int,
    reading: Reading,
) -> tuple[list[AnticipationProbe], set[ClipFailure]]:
    """Train a head for every pair of learning rate and weight decay, all on the same clips.

    As published: AdamW with one group per head, so with decay on biases and norms, a cosine to 0 and no warm-up.
    """
    assert settings.num_steps is not None
    points = settings.points
    heads = [_head(networks, ids, settings, seed) for _ in points]
    groups: list[dict[str, Any]] = [
        {"params": list(head.parameters()), **point} for head, point in zip(heads, points, strict=True)
    ]
    optimizer, cosine = torch.optim.AdamW(groups), Cosine(start=1.0, end=0.0)
    labels, failures = ids.labels(train.split.actions), set[ClipFailure]()
    steps = [reading.chunks(keys) for keys in _steps(len(train), settings, seed)]
    batches = reading.batches(train, [keys for step in steps for keys in step])
    noticed = time.monotonic()
    for number, step in enumerate(steps):
        for group, point in zip(optimizer.param_groups, points, strict=True):
            group["lr"] = point["lr"] * cosine.value(number - 1, settings.num_steps)
        optimizer.zero_grad()
        for batch in itertools.islice(batches, len(step)):
            failures.update(batch.failures)
            _add_gradients(networks, heads, batch, labels, weight=CLIPS_PER_GPU / settings.batch_size)
        optimizer.step()
        if time.monotonic() - noticed > NOTICE_SECONDS:
            noticed = time.monotonic()
            log.info("step %d of %d", number + 1, settings.num_steps)
    return heads, failures


def _add_gradients(
    networks: AnticipationNetworks,
    heads: list[AnticipationProbe],
    batch: ClipBatch,
    labels: dict[str, Int[Tensor, "clips"]],
    *,
    weight: float,
) -> None:
    """Add the gradients of a batch to those of all heads."""
    if not len(batch):
        return
    truth = {task: ids[batch.index].to(networks.device) for task, ids in labels.items()}
    with autocast(networks.device, networks.precision):
        tokens = networks.tokens(batch)
        for head in heads:
            loss = anticipation_loss(head(tokens), **truth)
            (weight * loss).backward()  # head by head: their graphs share nothing and need not coexist


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
    """Return the class-mean recall at 5 of every head, over the classes among the clips that can be read.

    Raises:
        ProbeError: If no clip can be read.
    """
    failures, index = set[ClipFailure](), []
    scored: list[list[ActionScores]] = [[] for _ in heads]
    for batch in reading.batches(val, reading.chunks([SampleKey(0, i) for i in range(len(val))])):
        failures.update(batch.failures)
        if not len(batch):
            continue
        index.append(batch.index)
        with autocast(networks.device, networks.precision):
            tokens = networks.tokens(batch)
            for head, found in zip(heads, scored, strict=True):
                scores = head(tokens)
                found.append(ActionScores(*(getattr(scores, task).float().cpu() for task in TASKS)))
    if not index:
        reasons = "; ".join(f"{f.path} ({f.reason})" for f in sorted(failures, key=lambda f: f.path)[:5])
        raise ProbeError(f"none of the {len(val)} clips of {val.split.source} can be read: {reasons}.")
    truth = {task: labels[torch.cat(index)] for task, labels in ids.labels(val.split.actions).items()}
    results = []
    for head, point, found in zip(heads, settings.points, scored, strict=True):
        recall = {
            task: class_mean_recall(torch.cat([getattr(s, task) for s in found]), truth[task])
            for task in TASKS
        }
        results.append(Recalls(setting=point, probe=head, **recall))
    return results, failures


def _head(
    networks: AnticipationNetworks, ids: ActionIds, settings: ProbeSettings, seed: int
) -> AnticipationProbe:
    """Return a head with first weights drawn by `seed`."""
    width = networks.encoder.embed_dim
    make = partial(
        AnticipationProbe,
        embed_dim=width,
        num_verbs=len(ids.verbs),
        num_nouns=len(ids.nouns),
        num_actions=len(ids.actions),
        num_heads=settings.num_heads or heads_for(width),
        depth=settings.depth,
    )
    return seeded(make, seed).to(networks.device)


def _steps(num_clips: int, settings: ProbeSettings, seed: int) -> Iterator[list[SampleKey]]:
    """Yield the clips of each step: epoch after epoch, each in a new order."""
    generator = torch.Generator().manual_seed(seed)
    stream = (
        SampleKey(epoch, row)
        for epoch in itertools.count()
        for row in torch.randperm(num_clips, generator=generator).tolist()
    )
    assert settings.num_steps is not None
    for _ in range(settings.num_steps):
        yield list(itertools.islice(stream, settings.batch_size))
