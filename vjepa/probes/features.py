"""Frozen features: the tokens of every clip of a manifest, computed once for all probes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float16, Int
from torch import Tensor
from torch.utils.data import DataLoader

from vjepa.data.loading.dataset import Sample, VideoClips, collate
from vjepa.data.manifests.rows import Manifest
from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError
from vjepa.probes.cache import TokenFile
from vjepa.probes.clips import AugmentedClips
from vjepa.probes.fitting.blocks import FrozenBlocks
from vjepa.probes.views import ONE_CLIP, ClipLayout
from vjepa.types import ClipBatch, ClipFailure

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
NOTICE_SECONDS = 10.0  # between two lines of progress


@dataclass(frozen=True)
class Features:
    """Tokens of the clips that could be read.

    `tokens` (clips, N, D) fp16: after the encoder's last norm they are small numbers, of which fp16 keeps 11
    bits (bf16: 8), as a large constant component asks for; `index` (clips,) rows of the manifest;
    `failures`: the others.
    """

    tokens: Float16[Tensor, "clips n d"]
    index: Int[Tensor, "clips"]
    failures: tuple[ClipFailure, ...] = ()

    def __repr__(self) -> str:
        return f"Features(tokens={tuple(self.tokens.shape)}, failures={len(self.failures)})"

    def labels(self, manifest: Manifest) -> Int[Tensor, "clips"]:
        """Class ids (clips,) by `manifest`, -1 where it has none: the features serve any label column.

        Args:
            manifest: The manifest of the clips, or the same rows read with another `label_column`.
        """
        return torch.tensor([manifest.rows[i].label for i in self.index.tolist()], dtype=torch.int64)

    def groups(self, manifest: Manifest) -> list[str]:
        """Group of each clip, "" where it has none."""
        return [manifest.rows[i].group for i in self.index.tolist()]

    def rows(self, chosen: Int[Tensor, "chosen"]) -> Features:
        """The features of some clips.

        Args:
            chosen: Positions among these clips.
        """
        return replace(self, tokens=self.tokens[chosen], index=self.index[chosen])


def random_init_like(encoder: VideoEncoder, *, seed: int) -> VideoEncoder:
    """An encoder of the same make with fresh random weights, in eval mode, on the same device.

    Args:
        encoder: The encoder whose architecture is taken.
        seed: Of the weights; the random state of the process is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        twin = VideoEncoder(**encoder.config)
    return twin.to(next(encoder.parameters()).device).eval()


@torch.no_grad()
def extract_features(
    encoder: VideoEncoder | FrozenBlocks,
    clips: VideoClips | AugmentedClips,
    *,
    layout: ClipLayout = ONE_CLIP,
    batch_size: int = 32,
    num_workers: int = 0,
    precision: Precision = "fp32",
    max_ram_gb: float = 8.0,
    scratch: Path | None = None,
    cached: TokenFile | None = None,
) -> Features:
    """Tokens of every clip, once, in the order of the manifest.

    Args:
        encoder: Frozen encoder; put in eval mode and back. Its device does the work, the tokens stay in RAM.
        clips: Clips that are the same each time, e.g. of `eval_clips`.
        layout: Several clips of a video in each of them, and the blocks whose tokens are taken.
        batch_size: Clips of one forward.
        num_workers: Processes that decode.
        precision: "bf16" runs the encoder in autocast.
        max_ram_gb: Size of the tokens in 10^9 bytes above which they go to a file in `scratch`.
        scratch: Folder for that file, which the caller deletes; None: too large is an error.
        cached: Where tokens are kept; those that are there are not computed again.

    Raises:
        ProbeError: If no clip can be read, the tokens are not finite, or they are too large.
    """
    room = cached or TokenRoom(len(clips), max_ram_gb=max_ram_gb, scratch=scratch)
    positions = room.missing()
    loader = DataLoader(
        clips,
        sampler=positions,
        batch_size=max(1, batch_size // layout.clips),
        num_workers=num_workers,
        collate_fn=_collate_with_failures,
        generator=torch.Generator(),  # else the loader draws from the random state of the process
    )
    device, was_training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    noticed, done = time.monotonic(), 0
    for batch, failed in loader:
        places = positions[done : done + len(failed)]
        done += len(failed)
        tokens = torch.empty(0, 0, 0, dtype=torch.float16)
        if len(batch):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                tokens = layout.tokens(encoder, batch.video.to(device)).half().cpu()
            if not tokens.isfinite().all():
                raise ProbeError(
                    f"the encoder gives tokens that are not finite on {clips.manifest.source}: it has diverged. "
                    "Use an earlier checkpoint."
                )
        room.add(places, tokens, {p: f for p, f in zip(places, failed, strict=True) if f is not None})
        if time.monotonic() - noticed > NOTICE_SECONDS:
            noticed = time.monotonic()
            log.info("features of %d of %d clips", done, len(positions))
    encoder.train(was_training)
    if cached is not None:
        cached.wait()
    return _features(room, clips, max_ram_gb=max_ram_gb, scratch=scratch)


def _features(
    room: TokenRoom | TokenFile,
    clips: VideoClips | AugmentedClips,
    *,
    max_ram_gb: float,
    scratch: Path | None,
) -> Features:
    """What is in a room, without the places of failures."""
    tokens, failures = room.tokens(), room.failures()
    listed = tuple(failures.values())
    if tokens is None:
        raise ProbeError(
            f"none of the {len(clips)} clips of {clips.manifest.source} can be read: {_list(listed)}."
        )
    good = torch.tensor([i for i in range(len(clips)) if i not in failures])
    if failures:
        log.warning("%d of %d clips cannot be read: %s", len(failures), len(clips), _list(listed))
        whole, shape = tokens, (len(good), *tokens.shape[1:])
        tokens = _space(shape, max_ram_gb=max_ram_gb, scratch=scratch)
        for to, origin in enumerate(good.tolist()):
            tokens[to] = whole[origin]
    return Features(tokens=tokens, index=good % len(clips.manifest), failures=listed)


class TokenRoom:
    """The tokens of one process's clips, each at its place, in RAM or, if they are many, in a scratch file.

    Args:
        num_clips: How many clips there are.
        max_ram_gb: What is larger goes to the file.
        scratch: Folder for the file.
    """

    def __init__(self, num_clips: int, *, max_ram_gb: float, scratch: Path | None) -> None:
        self.num_clips, self._max_ram_gb, self._scratch = num_clips, max_ram_gb, scratch
        self._tokens: Tensor | None = None
        self._failures: dict[int, ClipFailure] = {}

    def missing(self) -> list[int]:
        """Positions of all clips: nothing is there yet."""
        return list(range(self.num_clips))

    def add(
        self,
        positions: Sequence[int],
        tokens: Float16[Tensor, "good n d"],
        failures: Mapping[int, ClipFailure],
    ) -> None:
        """Keep a batch, as `TokenFile.add` does."""
        self._failures |= failures
        good = [position for position in positions if position not in failures]
        if good and self._tokens is None:
            shape = (self.num_clips, *tokens.shape[1:])
            self._tokens = _space(shape, max_ram_gb=self._max_ram_gb, scratch=self._scratch)
        if good and self._tokens is not None:
            self._tokens[good] = tokens

    def tokens(self) -> Float16[Tensor, "clips n d"] | None:
        """All tokens; None where no clip could be read."""
        return self._tokens

    def failures(self) -> dict[int, ClipFailure]:
        """Clips that could not be read, by position."""
        return self._failures


def _collate_with_failures(samples: Sequence[Sample]) -> tuple[ClipBatch, tuple[ClipFailure | None, ...]]:
    return collate(samples), tuple(sample.failure for sample in samples)


def _space(
    shape: tuple[int, ...], *, max_ram_gb: float, scratch: Path | None
) -> Float16[Tensor, "clips n d"]:
    """An empty tensor in RAM, or in a file if it is large."""
    count = torch.Size(shape).numel()
    gigabytes = count * torch.float16.itemsize / 1e9
    if gigabytes <= max_ram_gb:
        return torch.empty(shape, dtype=torch.float16)
    if scratch is None:
        raise ProbeError(
            f"tokens of {shape[0]} clips take {gigabytes:.1f} GB, max_ram_gb is {max_ram_gb:g}. "
            "Raise max_ram_gb, or give a scratch folder for a file."
        )
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / f"tokens_{len(list(scratch.iterdir()))}.bin"
    log.info("tokens of %d clips take %.1f GB: kept in %s", shape[0], gigabytes, file)
    return torch.from_file(str(file), shared=True, size=count, dtype=torch.float16).view(shape)


def _list(failures: Sequence[ClipFailure], most: int = 20) -> str:
    named = "; ".join(f"{failure.path} ({failure.reason})" for failure in failures[:most])
    return named + (f"; and {len(failures) - most} more" if len(failures) > most else "")
