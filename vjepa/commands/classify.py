"""The verb `vjepa classify`."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vjepa.commands.flags import Flat
from vjepa.commands.report import Report
from vjepa.features.windows import windows_of
from vjepa.names import redacted
from vjepa.probes.base import ProbeError
from vjepa.probes.classifier import Classifier, open_classifier
from vjepa.probes.devices import Device, device_of
from vjepa.probes.videos import ClassifiedVideos, classify_videos

TABLE = "classes.csv"
COLUMNS = ("video", "start", "end", "rank", "label", "probability")


@dataclass(frozen=True)
class Completion:
    """What a released probe does not say of itself.

    Args:
        encoder: The probe's encoder (default: where it was when the probe was trained, or in the probe's folder).
        labels: Names of the classes: a CSV or JSON file, or a set by name, like k400 (default: the probe's own).
        protocol: How clips are cut for a released probe, like ssv2 (default: the protocol in its name).
        layers: Blocks of the encoder that a released probe reads (default: the protocol's).
        probe_class: Class path of your own probe class, if the folder names one; it is imported only if given here.
    """

    encoder: str | None = None
    labels: str | None = None
    protocol: str | None = None
    layers: tuple[int, ...] | None = None
    probe_class: str | None = None


NOTHING = Completion()


def classify(
    *,
    probe: Path,
    videos: list[str],
    completion: Flat[Completion] = NOTHING,
    window: float | None = None,
    stride: float | None = None,
    top: int = 5,
    out: Path | None = None,
    batch_size: int = 16,
    device: Device = "auto",
    decoder: str = "auto",
) -> Report:
    """Print the label names and probabilities of videos.

    A video that cannot be read gets a line with the reason, and the others continue; the exit code is then 2, also if
    none can be read. If the end of a video is missing, the windows before the damage are classified.

    Args:
        probe: Folder written by `vjepa probe`, or a released probe: a file of Meta's, a folder of transformers' or of
            `vjepa convert`.
        videos: Video files, or folders of them, also of class folders; a folder of images is one video.
        completion: What a released probe does not say of itself.
        window: Classify each part of this many seconds by itself, and average them (default: the whole video).
        stride: Seconds from one window to the next (default: as long as a window).
        top: How many labels to list.
        out: Folder for result.json and classes.csv, one line per label.
        batch_size: Clips of one forward pass of the encoder.
        device: Where to compute; auto uses a GPU if there is one.
        decoder: What reads the videos: auto, pyav, torchcodec, decord, frames, or a class path.
    """
    if top < 1:
        raise ProbeError(f"top {top}: give at least 1.")
    windows = windows_of(window, stride, tail="align", short="repeat")
    given = asdict(completion)
    name = given.pop("protocol")
    classifier = open_classifier(probe, protocol_name=name, **given, device=device_of(device))
    found = classify_videos(classifier, videos, windows=windows, batch_size=batch_size, decoder=decoder)
    report = _report(classifier, found, top=top, windowed=windows is not None)
    if out is not None:
        _write_table(out / TABLE, report.figures)
    return report


def _report(classifier: Classifier, found: ClassifiedVideos, *, top: int, windowed: bool) -> Report:
    """Return rows for the terminal and figures: the merged prediction of each video, and its windows."""
    merged: dict[str, list[dict[str, Any]]] = {}
    parts: dict[str, list[dict[str, Any]]] = {}
    reasons: dict[str, list[str]] = {}
    for failure in found.failures:
        reasons.setdefault(failure.path, []).append(failure.reason)
    lines = []
    for video in dict.fromkeys(found.videos):
        windows = found.windows.get(video, [])
        if windows:
            mean = torch.stack([probabilities for _, probabilities in windows]).mean(dim=0)
            merged[video] = _best(classifier, mean, top)
        if windowed and windows:
            parts[video] = [
                {"start": row.start, "end": row.end, "labels": _best(classifier, probabilities, top)}
                for row, probabilities in windows
            ]
            lines += [
                _line(video, w["labels"], span=f"{w['start']:.2f}-{w['end']:.2f} s") for w in parts[video]
            ]
        if windows:
            lines.append(_line(video, merged[video], span="all windows" if windowed else None))
        if failed := reasons.get(redacted(video)):
            reason = "; ".join(dict.fromkeys(failed))
            lines.append(_line(video, [], reason=reason, span="" if windowed else None))
    return Report(
        title=f"{classifier.kind} probe of {len(classifier.label_names)} classes",
        rows=lines,
        figures={
            "predictions": merged,
            **({"windows": parts} if windowed else {}),
            "failures": [asdict(failure) for failure in found.failures],
        },
        exit_code=2 if found.failures else 0,
    )


def _best(classifier: Classifier, probabilities: Float[Tensor, "classes"], top: int) -> list[dict[str, Any]]:
    order = probabilities.argsort(descending=True)[:top].tolist()
    return [{"label": classifier.label_names[i], "probability": float(probabilities[i])} for i in order]


def _line(video: str, labels: list[dict[str, Any]], *, span: str | None, reason: str = "") -> dict[str, str]:
    by_rank = {f"{i}": f"{x['label']} {x['probability']:.3f}" for i, x in enumerate(labels, start=1)}
    place = {"video": video} | ({} if span is None else {"seconds": span})
    return place | (by_rank or {"1": f"cannot be read: {reason}"})


def _write_table(file: Path, figures: dict[str, Any]) -> None:
    """Write one line per label, of each window and of each video as a whole (without start and end)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for video, labels in figures["predictions"].items():
            spans = [(w["start"], w["end"], w["labels"]) for w in figures.get("windows", {}).get(video, [])]
            for start, end, ranked in [*spans, ("", "", labels)]:
                for rank, label in enumerate(ranked, start=1):
                    writer.writerow([redacted(video), start, end, rank, label["label"], label["probability"]])
