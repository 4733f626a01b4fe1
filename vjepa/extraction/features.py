"""Frozen features of clips, and the files they are kept in."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.utils.data import DataLoader

from vjepa.data import Manifest
from vjepa.extraction.clips import TimedClips, collate_timed
from vjepa.models import VideoEncoder
from vjepa.models.files import write_tensors, write_text
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

Pool = Literal["mean", "none"]
Precision = Literal["fp32", "bf16"]
NOTICE_SECONDS = 10.0  # between two lines of progress
LISTED = 5  # failures named in an error; the rest is counted
FEATURES, ABOUT = "features.safetensors", "features.json"


class ExtractionError(ValueError):
    """Features that cannot be taken, and what to do."""


@dataclass(frozen=True)
class Features:
    """Features of the clips that could be read, in the order of the manifest.

    `features` (clips, D), or (clips, N, D) not pooled; `index` (clips,) rows of the manifest; `seconds`
    (clips, 2) when the first and the last frame of a clip are shown; `failures`: the other clips.
    """

    features: Float[Tensor, "clips *n d"]
    index: Int[Tensor, "clips"]
    seconds: Float64[Tensor, "clips 2"]
    failures: tuple[ClipFailure, ...]

    def __repr__(self) -> str:
        return f"Features(features={tuple(self.features.shape)}, failures={len(self.failures)})"


@torch.no_grad()
def extract_features(
    encoder: VideoEncoder,
    clips: TimedClips,
    *,
    pool: Pool = "mean",
    batch_size: int = 16,
    num_workers: int = 0,
    precision: Precision = "fp32",
) -> Features:
    """Features of every clip, fp32, on the encoder's device.

    Args:
        encoder: The frozen encoder, in eval mode.
        clips: The clips.
        pool: "mean" over the tokens of a clip, or "none" to keep them all.
        batch_size: Clips of one forward.
        num_workers: Processes that decode; 0 decodes in this one.
        precision: "bf16" runs the encoder in autocast.

    Raises:
        ExtractionError: If no clip can be read, or the encoder's tokens are not finite.
    """
    device = next(encoder.parameters()).device
    loader = DataLoader(
        clips,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_timed,
        generator=torch.Generator(),
    )  # else the loader draws from the random state of the process
    features, batches, notice = [], [], time.monotonic()
    for batch in loader:
        batches.append(batch)
        if len(batch.index):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                tokens = encoder(batch.video.to(device))
            if not tokens.isfinite().all():
                raise ExtractionError(
                    "the encoder gives tokens that are not finite: it diverged. Use an earlier checkpoint."
                )
            features.append((tokens.float().mean(dim=1) if pool == "mean" else tokens.float()).cpu())
        if time.monotonic() - notice > NOTICE_SECONDS:
            notice = time.monotonic()
            log.info("features of %d of %d clips", sum(len(b.index) for b in batches), len(clips))
    failures = tuple(failure for batch in batches for failure in batch.failures)
    for failure in failures:
        log.warning("cannot read %s: %s", failure.path, failure.reason)
    if not features:
        raise ExtractionError(f"none of {len(clips)} clips can be read: {_listed(failures)}. Mend the files.")
    index, seconds = (torch.cat([getattr(b, k) for b in batches]) for k in ("index", "seconds"))
    return Features(torch.cat(features), index, seconds, failures)


def write_features(
    folder: Path, features: Features, manifest: Manifest, about: dict[str, Any]
) -> tuple[Path, Path]:
    """Write `features.safetensors`, and `features.json` that says what its rows are.

    Args:
        folder: Where to; made if need be.
        features: What was extracted.
        manifest: The clips' manifest; labels are written if it has any.
        about: Where the features come from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [manifest.rows[i] for i in features.index.tolist()]
    tensors = {"features": features.features, "index": features.index}
    if manifest.label_names:
        tensors["label"] = torch.tensor([row.label for row in rows], dtype=torch.int64)
    clips = [
        {"path": row.path, "start": start, "end": end}
        for row, (start, end) in zip(rows, features.seconds.tolist(), strict=True)
    ]
    content = about | {
        "label_names": list(manifest.label_names),
        "clips": clips,
        "failures": [asdict(failure) for failure in features.failures],
    }
    write_tensors(tensors, folder / FEATURES)
    write_text(json.dumps(content, indent=1), folder / ABOUT)
    return folder / FEATURES, folder / ABOUT


def _listed(failures: tuple[ClipFailure, ...]) -> str:
    named = "; ".join(f"{failure.path} ({failure.reason})" for failure in failures[:LISTED])
    return named + (f"; and {len(failures) - LISTED} more" if len(failures) > LISTED else "")
