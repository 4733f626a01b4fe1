"""The verb `vjepa extract`."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Literal

import torch

from vjepa.checkpoints import load_encoder
from vjepa.data import ClipSampler, read_manifest
from vjepa.extraction.clips import TimedClips
from vjepa.extraction.features import (
    ExtractionError,
    Pool,
    Precision,
    extract_features,
    write_features,
)
from vjepa.extraction.preprocessing import eval_transform
from vjepa.report import Report

log = logging.getLogger(__name__)


def extract(
    *,
    encoder: str,
    data: str,
    out: Path,
    pool: Pool = "mean",
    num_frames: int | None = None,
    fps: float | None = None,
    batch_size: int = 16,
    num_workers: int = 0,
    which: Literal["target", "context"] = "target",
    precision: Precision = "fp32",
    label: str = "label",
    decoder: str = "auto",
) -> Report:
    """Writes frozen features of the clip in the middle of every video; unreadable videos are listed.

    Args:
        encoder: Folder written by vjepa fit or save_pretrained, or a .ckpt file.
        data: A manifest, a folder of videos, or one video.
        out: Folder for features.safetensors (features, index and label by clip), features.json (what they
            are, paths, seconds, failures) and result.json.
        pool: mean over the tokens of a clip, or none to keep all of them.
        num_frames: Frames of a clip (default: the encoder's).
        fps: Frames of a clip a second of video (default: every frame).
        batch_size: Clips of one forward.
        num_workers: Processes that decode; 0 decodes in the main one.
        which: Which encoder of a run: its moving average (target), or the one that was trained (context).
        precision: bf16 runs the encoder in autocast; features are written in fp32.
        label: Column of the manifest that holds the label.
        decoder: auto, pyav, torchcodec, decord, frames, or the class path of a decoder of your own.
    """
    if batch_size < 1 or num_workers < 0:
        raise ExtractionError(
            f"got batch_size {batch_size}, num_workers {num_workers}: give 1 and 0, or more."
        )
    began = time.monotonic()
    network = load_encoder(encoder, which=which).to(_device())
    manifest = read_manifest(data, label_column=label)
    transform = eval_transform(network)
    frames = num_frames or network.config["num_frames"]
    sampler = ClipSampler(num_frames=frames, fps=fps, position="centre")
    clips = TimedClips(manifest, sampler=sampler, transform=transform, decoder=decoder)
    features = extract_features(
        network, clips, pool=pool, batch_size=batch_size, num_workers=num_workers, precision=precision
    )
    about = {
        "encoder": {"path": str(Path(encoder).resolve()), "which": which, "config": network.config},
        "preprocessing": {
            **{"num_frames": frames, "fps": fps, "position": "centre", "size": transform.size},
            **{"short_side": transform.short_side, "mean": transform.mean, "std": transform.std},
        },
        "pool": pool,
        "precision": precision,
    }
    files = write_features(Path(out), features, manifest, about)
    log.info("features in %s and %s", *files)
    seconds = time.monotonic() - began
    return Report(
        title="features",
        figures={
            "num_clips": len(features.index),
            "num_failures": len(features.failures),
            "failures": [f"{failure.path}: {failure.reason}" for failure in features.failures],
            "shape": list(features.features.shape),
            "seconds": round(seconds, 2),
            "clips_per_second": round(len(features.index) / seconds, 2),
        },
    )


def _device() -> torch.device:
    """The accelerator if there is one."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
