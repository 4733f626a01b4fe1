"""The verb `vjepa classify`: names and probabilities of videos, or of the windows of long ones."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vjepa.commands.devices import Device, device_of
from vjepa.commands.report import Report
from vjepa.data.decoders.readable_prefix import CUT_OFF
from vjepa.data.manifests.folders import listing
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import Manifest, ManifestRow
from vjepa.probes.base import ProbeError
from vjepa.probes.classifier import Classifier, open_classifier
from vjepa.probes.windows import WindowRows, window_rows
from vjepa.types import ClipFailure

TABLE = "classes.csv"
COLUMNS = ("video", "start", "end", "rank", "label", "probability")


@dataclass
class Named:
    """What became of some rows: of each video its windows' rows and probabilities, and what failed."""

    windows: dict[str, list[tuple[ManifestRow, Float[Tensor, "classes"]]]] = field(default_factory=dict)
    failures: list[ClipFailure] = field(default_factory=list)


def classify(
    *,
    probe: Path,
    videos: list[str],
    encoder: str | None = None,
    labels: str | None = None,
    protocol: str | None = None,
    layers: tuple[int, ...] | None = None,
    window: float | None = None,
    stride: float | None = None,
    top: int = 5,
    out: Path | None = None,
    batch_size: int = 16,
    device: Device = "auto",
    decoder: str = "auto",
) -> Report:
    """Label names and probabilities of videos.

    A video that cannot be read gets a line with the reason and the others go on; the exit code is then 2, as it is
    where none can be read. Of one whose end is missing, the windows before the damage are named.

    Args:
        probe: Folder written by `vjepa probe`, or a released probe: a file of Meta's, a folder of transformers' or of
            `vjepa convert`.
        videos: Video files, or folders of them, of class folders too; a folder of images is one video.
        encoder: The probe's encoder (default: where it was when the probe was trained, or in the probe's folder).
        labels: Names of the classes: a CSV or JSON file, or a set by name, like k400 (default: the probe's own).
        protocol: How clips are cut for a released probe, like ssv2 (default: as its name tells).
        layers: Blocks of the encoder that a released probe reads (default: as the protocol says).
        window: Name each part of this many seconds by itself, and their mean (default: the video as a whole).
        stride: Seconds from one window to the next (default: as long as a window).
        top: How many labels to name.
        out: Folder for result.json and classes.csv, one line a label.
        batch_size: Clips the encoder takes at a time.
        device: Where to compute; auto takes a GPU if there is one.
        decoder: What reads the videos: auto, pyav, torchcodec, decord, frames, or a class path.
    """
    if top < 1:
        raise ProbeError(f"top {top}: give at least 1.")
    if stride is not None and window is None:
        raise ProbeError(f"stride {stride:g} without a window. Give its length with --window.")
    classifier = open_classifier(
        probe, encoder=encoder, labels=labels, protocol_name=protocol, levels=layers, device=device_of(device)
    )
    videos = _files(videos)
    rows = WindowRows(whole=[ManifestRow(video) for video in videos])
    if window is not None:
        rows = window_rows(videos, window=window, stride=stride, decoder=decoder)
    named = Named(failures=rows.failures)
    _name(classifier, rows.whole, named, batch_size=batch_size, decoder=decoder)
    _name(classifier, rows.cut_off, named, batch_size=batch_size, decoder=CUT_OFF)
    if not named.windows:
        reasons = "; ".join(f"{f.path} ({f.reason})" for f in named.failures)
        raise ProbeError(f"none of the {len(videos)} clips of the list can be read: {reasons}.")
    report = _report(classifier, videos, named, top=top, windowed=window is not None)
    if out is not None:
        _write_table(out / TABLE, report.figures)
    return report


def _files(videos: list[str]) -> list[str]:
    """The videos themselves, with those of a folder in its place."""
    found: list[str] = []
    for video in videos:
        holds_videos = Path(video).is_dir() and listing(Path(video)).content != "images"
        found += [row.path for row in read_manifest(video).rows] if holds_videos else [video]
    return found


def _name(
    classifier: Classifier, rows: list[ManifestRow], named: Named, *, batch_size: int, decoder: str
) -> None:
    manifest = Manifest(rows=tuple(rows), label_names=(), kind="videos", source="the list")
    if not rows:
        return
    for batch, shares in classifier.named(manifest, batch_size=batch_size, decoder=decoder):
        named.failures += batch.failures
        for index, share in zip(batch.index.tolist(), shares, strict=True):
            named.windows.setdefault(rows[index].path, []).append((rows[index], share))


def _report(classifier: Classifier, videos: list[str], named: Named, *, top: int, windowed: bool) -> Report:
    """Rows for the terminal and figures: the merged prediction of each video, and its windows."""
    merged: dict[str, list[dict[str, Any]]] = {}
    parts: dict[str, list[dict[str, Any]]] = {}
    reasons: dict[str, list[str]] = {}
    for failure in named.failures:
        reasons.setdefault(failure.path, []).append(failure.reason)
    lines = []
    for video in dict.fromkeys(videos):
        found = named.windows.get(video, [])
        if found:
            merged[video] = _best(classifier, torch.stack([share for _, share in found]).mean(dim=0), top)
        if windowed and found:
            parts[video] = [
                {"start": row.start, "end": row.end, "labels": _best(classifier, share, top)}
                for row, share in found
            ]
            lines += [
                _line(video, w["labels"], span=f"{w['start']:.2f}-{w['end']:.2f} s") for w in parts[video]
            ]
        if found:
            lines.append(_line(video, merged[video], span="all windows" if windowed else None))
        if video in reasons:
            told = "; ".join(dict.fromkeys(reasons[video]))
            lines.append(_line(video, [], reason=told, span="" if windowed else None))
    return Report(
        title=f"{classifier.kind} probe of {len(classifier.label_names)} classes",
        rows=lines,
        figures={
            "predictions": merged,
            **({"windows": parts} if windowed else {}),
            "failures": [asdict(failure) for failure in named.failures],
        },
        exit_code=2 if named.failures else 0,
    )


def _best(classifier: Classifier, share: Float[Tensor, "classes"], top: int) -> list[dict[str, Any]]:
    order = share.argsort(descending=True)[:top].tolist()
    return [{"label": classifier.label_names[i], "probability": float(share[i])} for i in order]


def _line(video: str, labels: list[dict[str, Any]], *, span: str | None, reason: str = "") -> dict[str, str]:
    named = {f"{i}": f"{x['label']} {x['probability']:.3f}" for i, x in enumerate(labels, start=1)}
    place = {"video": video} | ({} if span is None else {"seconds": span})
    return place | (named or {"1": f"cannot be read: {reason}"})


def _write_table(file: Path, figures: dict[str, Any]) -> None:
    """One line a label, of each window and of each video as a whole (no start and end)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for video, labels in figures["predictions"].items():
            spans = [(w["start"], w["end"], w["labels"]) for w in figures.get("windows", {}).get(video, [])]
            for start, end, named in [*spans, ("", "", labels)]:
                for rank, label in enumerate(named, start=1):
                    writer.writerow([video, start, end, rank, label["label"], label["probability"]])
