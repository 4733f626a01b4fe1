"""Probes during a fit: top-1 on a few labelled clips, compared with an encoder with random weights."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, cast

import lightning as L
import numpy as np

from vjepa.data import Manifest, VideoDataModule, read_manifest
from vjepa.data.loading.dataset import VideoClips
from vjepa.data.manifests.rows import Rows
from vjepa.errors import SettingError, VjepaError
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.encode import Precision
from vjepa.features.tokens import ClipTokens, tokens_of
from vjepa.models import VideoEncoder
from vjepa.probes import LabelledTokens, ProbeError, ProbeKind, fit_probe, random_init_like
from vjepa.training import PretrainModule, gathered_network
from vjepa.training.callbacks import log_interval

log = logging.getLogger(__name__)

Scores = dict[str, float]


class OnlineProbe(L.Callback):
    """Probes of the target encoder on a small labelled set, every `every_n_steps` steps.

    Logs `probe/<kind>`, the top-1 on the validation clips as a share of 1, and `probe/<kind>_gain`, its difference to
    the top-1 of the same probe on an encoder with random weights. A `ModelCheckpoint` may monitor either.

    Args:
        every_n_steps: Steps between two measurements, a multiple of `trainer.log_every_n_steps`.
        train: Manifest of the clips to train the probe on (default: the run's own).
        val: Manifest of the clips to measure it on (default: the run's own).
        root: Folder that relative paths in both manifests start from.
        label: Column of the labels.
        kinds: Kinds of probes.
        num_clips: Largest number of labelled clips of each manifest, drawn by the run's seed.
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 500,
        train: str | None = None,
        val: str | None = None,
        root: str | None = None,
        label: str = "label",
        kinds: tuple[ProbeKind, ...] = ("linear",),
        num_clips: int = 256,
    ) -> None:
        if not kinds or every_n_steps < 1 or num_clips < 2:
            raise SettingError(
                f"kinds {kinds}, every_n_steps {every_n_steps}, num_clips {num_clips}: give a kind of probe, at least "
                "1 step and 2 clips."
            )
        if "finetune" in kinds:
            raise SettingError(
                f"kinds {kinds}: fine-tuning takes longer than the run that it would measure. Omit finetune, and run "
                "vjepa probe --probe finetune on the exported encoder."
            )
        self.every_n_steps, self.label, self.kinds, self.num_clips = every_n_steps, label, kinds, num_clips
        self.sources, self.root = {"train": train, "val": val}, root
        self.last_step = 0
        self.manifests: list[Manifest] = []  # to train on, to measure on
        self.baseline: Scores = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the scores will be logged and that there are labels.

        Raises:
            ValueError: If not.
        """
        self.last_step = trainer.global_step
        every = log_interval(trainer)
        if self.every_n_steps % every:
            raise SettingError(
                f"OnlineProbe: every_n_steps {self.every_n_steps}, and figures are logged every {every} steps. "
                f"Give a multiple of trainer.log_every_n_steps, such as {every * -(-self.every_n_steps // every)}."
            )
        self.manifests = self._labelled(_data(trainer), cast("PretrainModule", pl_module).seed)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Train the probes and log their scores on all ranks.

        Raises:
            ProbeError: If the encoder's tokens are not finite, or the labels make no task.
        """
        step = trainer.global_step
        if step == self.last_step or step % self.every_n_steps:
            return
        self.last_step = step
        module = cast("PretrainModule", pl_module)
        encoder = gathered_network(module.objective.target_encoder)  # all ranks together
        found: Scores | str | None = None
        if trainer.is_global_zero:
            try:
                found = self._scores(trainer, module, encoder)
            except VjepaError as error:  # the other ranks wait for an answer
                found = str(error)
        found = trainer.strategy.broadcast(found)
        if not isinstance(found, dict):
            raise ProbeError(f"OnlineProbe at step {step}: {found}")
        for name, value in found.items():
            pl_module.log(f"probe/{name}", value, batch_size=1)

    def _scores(self, trainer: L.Trainer, module: PretrainModule, encoder: VideoEncoder) -> Scores:
        data, seed = _data(trainer), module.seed
        precision: Precision = "bf16" if "bf16" in str(trainer.precision) else "fp32"
        if not self.baseline:
            random = random_init_like(encoder, seed=seed)
            self.baseline = self._top1(_features(random, self.manifests, data, precision), seed)
        now = self._top1(_features(encoder, self.manifests, data, precision), seed)
        for kind in self.kinds:
            values = (trainer.global_step, self.label, kind, 100 * now[kind], 100 * self.baseline[kind])
            log.info("step %d: %s by %s probe %.1f %%, random init %.1f %%", *values)
        return now | {f"{kind}_gain": now[kind] - self.baseline[kind] for kind in self.kinds}

    def _top1(self, features: list[ClipTokens], seed: int) -> Scores:
        (seen, unseen), (train, val) = features, self.manifests
        data = LabelledTokens.of(seen, train), LabelledTokens.of(unseen, val)
        classes = len(train.label_names)
        return {kind: fit_probe(kind, *data, num_classes=classes, seed=seed).top1 for kind in self.kinds}

    def _labelled(self, data: VideoDataModule, seed: int) -> list[Manifest]:
        """Return a few labelled clips to train on and a few to measure on."""
        found: list[Manifest] = []
        for split, own in self.sources.items():
            source = own or data.sources[split]
            if source is None:
                raise SettingError(f"OnlineProbe has no {split} clips. Give its {split}, or data.{split}.")
            names = found[0].label_names if found else ()
            root = self.root if own else data.root
            manifest = read_manifest(source, root=root, label_column=self.label, label_names=names)
            if not manifest.label_names:
                raise SettingError(
                    f"OnlineProbe: {manifest.describe()}. Name the column of labels with `label`, or give another "
                    f"{split}."
                )
            found.append(_few(manifest, self.num_clips, seed))
        return found


def _few(manifest: Manifest, num_clips: int, seed: int) -> Manifest:
    """Return at most `num_clips` of the labelled rows, in their order."""
    rows = manifest.rows if isinstance(manifest.rows, Rows) else Rows.of(manifest.rows)
    labelled = np.flatnonzero(rows.label >= 0)
    chosen = np.random.default_rng(seed).permutation(labelled)[:num_clips]
    return replace(manifest, rows=rows.take(np.sort(chosen)))


def _features(
    encoder: VideoEncoder, manifests: list[Manifest], data: VideoDataModule, precision: Precision
) -> list[ClipTokens]:
    clips = (
        VideoClips(
            manifest,
            sampler=data.sampler.at("centre"),
            transform=data.transform.centred(),
            decoder=data.decoder,
            timeout_seconds=data.reading.timeout_seconds,
        )
        for manifest in manifests
    )
    options: dict[str, Any] = {"num_workers": data.num_workers, "precision": precision}
    return [tokens_of(encoder, c, ClipSpec(), **options) for c in clips]


def _data(trainer: L.Trainer) -> VideoDataModule:
    data = cast("Any", trainer).datamodule
    assert isinstance(data, VideoDataModule)
    return data
