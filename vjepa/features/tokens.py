"""The tokens of every clip of a manifest, computed once for all probes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float16, Int
from torch import Tensor, nn

from vjepa import __version__, files
from vjepa.data.manifests.identity import state_of
from vjepa.data.manifests.rows import Manifest
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.encode import ManifestClips, Precision, autocast, clip_tokens, encode, placed_batches
from vjepa.features.errors import FeaturesError
from vjepa.features.store import ALONE, Ranks, RecordStore, space
from vjepa.models.files import weights_digest
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

ABOUT = "about.json"


@dataclass(frozen=True)
class ClipTokens:
    """Tokens of the clips that could be read.

    `tokens` (clips, N, D) are fp16, because a large constant part needs 11 bits where bf16 has 8. The
    encoder's last norm keeps them small enough for that; with probe finetune they come before it. `index` (clips,)
    are rows of the manifest, `failures` the other clips. `num_padded` clips repeat the last frame of a video
    that is too short.
    """

    tokens: Float16[Tensor, "clips n d"]
    index: Int[Tensor, "clips"]
    failures: tuple[ClipFailure, ...] = ()
    num_padded: int = 0

    def __repr__(self) -> str:
        return f"ClipTokens(tokens={tuple(self.tokens.shape)}, failures={len(self.failures)})"

    def labels(self, manifest: Manifest) -> Int[Tensor, "clips"]:
        """Return class ids (clips,) by `manifest`, -1 where it has none: the tokens serve any label column."""
        return torch.tensor([manifest.rows[i].label for i in self.index.tolist()], dtype=torch.int64)

    def groups(self, manifest: Manifest) -> list[str]:
        """Return the group of each clip, "" where it has none."""
        return [manifest.rows[i].group for i in self.index.tolist()]


def tokens_of(
    encoder: nn.Module,
    clips: ManifestClips,
    spec: ClipSpec,
    *,
    store: RecordStore | None = None,
    ranks: Ranks = ALONE,
    batch_size: int = 32,
    num_workers: int = 0,
    precision: Precision = "fp32",
) -> ClipTokens:
    """Return the tokens of every clip, computed once, in the order of the manifest.

    Args:
        encoder: The frozen encoder, or its frozen blocks. Its device does the work.
        clips: Clips that are the same each time.
        spec: The number of clips of a video that each item joins, and the blocks whose tokens are read.
        store: Where the tokens go, with a place per clip (default: memory); those that are there are not computed
            again, and those of other processes are waited for.
        ranks: Which of the clips this process computes.
        batch_size: Clips of one forward.
        num_workers: Processes that decode.
        precision: "bf16" runs the encoder in autocast.

    Raises:
        FeaturesError: If no clip can be read, the tokens are not finite, or they are too large.
    """
    store = store or RecordStore(num_records=len(clips))
    places = store.missing(ranks.share(len(clips)))
    batches = placed_batches(
        clips,
        places,
        batch_size=max(1, batch_size // spec.clips_per_video),
        num_workers=num_workers,
    )
    device = next(encoder.parameters()).device

    def compute(video: Tensor) -> Tensor:
        with autocast(device, precision):
            return clip_tokens(encoder, video, spec)

    of = f"the clips of {clips.manifest.source}"
    for batch, tokens in encode(encoder, batches, compute, dtype=torch.float16, of=of):
        good = [place for place in batch.places if place not in batch.failures]
        store.add(good, tokens, failures=batch.failures, note={"padded": batch.padded})
    if store.folder is not None:
        store.wait()
    return _collected(store, clips)


def _collected(store: RecordStore, clips: ManifestClips) -> ClipTokens:
    """Return what is in a store, without the places of failures."""
    tokens, failures = store.records(), store.failures()
    listed = tuple(failures.values())
    if tokens is None:
        raise FeaturesError(
            f"none of the {len(clips)} clips of {clips.manifest.source} can be read: {listing(listed)}."
        )
    good = torch.tensor([i for i in range(len(clips)) if i not in failures])
    if failures:
        log.warning("%d of %d clips cannot be read: %s", len(failures), len(clips), listing(listed))
        every, shape = tokens, (len(good), *tokens.shape[1:])
        tokens = space(shape, every.dtype, max_ram_gb=store.max_ram_gb, scratch=store.scratch)
        for to, origin in enumerate(good.tolist()):
            tokens[to] = every[origin]
    padded = {place for entry in store.entries() for place in entry.note.get("padded", ())}
    if padded:
        log.warning(
            "%d of %d clips of %s are longer than their video and repeat its last frame",
            len(padded),
            len(clips),
            clips.manifest.source,
        )
    return ClipTokens(
        tokens=tokens, index=good % len(clips.manifest), failures=listed, num_padded=len(padded)
    )


def cache_folder(
    cache: Path, encoder: nn.Module, manifest: Manifest, preprocessing: Mapping[str, Any]
) -> Path:
    """Return the folder in `cache` for these features, named by a hash of all they depend on; about.json says what.

    Labels are not among it: the features serve any column. A local file counts with its size and time of change.
    """
    rows = (json.dumps([row.path, row.start, row.end, *state_of(row.path)]).encode() for row in manifest.rows)
    about = {
        "encoder": weights_digest(encoder),
        "config": getattr(encoder, "config", {}),
        "preprocessing": dict(preprocessing),
        "num_rows": len(manifest.rows),
        "rows": files.digest(*rows),
        "vjepa": __version__,
    }
    text = json.dumps(about, indent=2, sort_keys=True, default=str)
    folder = cache / files.digest(text.encode(), size=12)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(text, folder / ABOUT)
    return folder


def listing(failures: Sequence[ClipFailure], most: int = 20) -> str:
    """Return failures as one line of text: paths with reasons, and how many more there are."""
    named = "; ".join(f"{failure.path} ({failure.reason})" for failure in failures[:most])
    return named + (f"; and {len(failures) - most} more" if len(failures) > most else "")
