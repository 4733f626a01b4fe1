"""The verb `vjepa probe`."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

from vjepa.commands.devices import Device, device_of
from vjepa.probes.anticipation.run import NAME as EK100
from vjepa.probes.anticipation.run import AnticipationChoice, AnticipationWork, probe_anticipation
from vjepa.probes.base import ProbeError
from vjepa.probes.features import Precision
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.results import ProbeKind
from vjepa.probes.run import LabelledWork, probe_labelled

DEFAULT_GRID = ProbeSettings()
DEFAULT_ANTICIPATION = AnticipationChoice()


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
    anticipation: AnticipationChoice = DEFAULT_ANTICIPATION,
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
        anticipation: What protocol ek100 alone needs. Its train and val are the official EPIC_100_train.csv and
            EPIC_100_validation.csv, root the folder of the videos; val then chooses the head, as published.
    """
    return _started(dict(locals()))


def _started(given: dict[str, Any]) -> Report:
    """Hand the arguments of `probe` to the kind of protocol that reads them."""
    given = given | {"device": device_of(given["device"])}
    if given["protocol"] == EK100:
        _refuse_unread(given)
        return probe_anticipation(
            AnticipationWork(**_fields_of(AnticipationWork, given)), given["anticipation"]
        )
    if given["anticipation"] != DEFAULT_ANTICIPATION:
        raise ProbeError(
            f"--anticipation.* without protocol {EK100}. Give --protocol {EK100}, or leave it out."
        )
    return probe_labelled(LabelledWork(**_fields_of(LabelledWork, given)))


def _fields_of(kind: type[AnticipationWork] | type[LabelledWork], given: dict[str, Any]) -> dict[str, Any]:
    return {field.name: given[field.name] for field in fields(kind)}


def _refuse_unread(given: dict[str, Any]) -> None:
    """Raise `ProbeError` where an argument was given that protocol ek100 does not read."""
    read = {field.name for field in fields(AnticipationWork)} | {"protocol", "anticipation"}
    defaults = inspect.signature(probe).parameters
    unread = [f"--{name}" for name in given if name not in read and given[name] != defaults[name].default]
    if unread:
        raise ProbeError(f"protocol {EK100} has no use for {', '.join(unread)}. Leave it out.")
