"""The loop of every frozen pass: batches of clips through an encoder that is not trained."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vjepa.data.loading.dataset import Sample, collate
from vjepa.data.loading.workers import LOOK_SECONDS, from_workers
from vjepa.data.manifests.rows import Manifest
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.errors import FeaturesError
from vjepa.models import VideoEncoder
from vjepa.types import ClipBatch, ClipFailure, PixelScale

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
DType = Literal["fp32", "bf16", "fp16"]
NOTICE_SECONDS = 10.0  # between two lines of progress


@runtime_checkable
class Clips(Protocol):
    """A batch of clips: normalised floats, or bytes with the `scale` that makes them so."""

    @property
    def video(self) -> Tensor: ...

    @property
    def scale(self) -> PixelScale | None: ...

    def __len__(self) -> int: ...


@runtime_checkable
class ManifestClips(Protocol):
    """A data set whose clips are those of a manifest, once or several times one after the other."""

    manifest: Manifest

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


C = TypeVar("C", bound=Clips)


@dataclass(frozen=True)
class PlacedBatch:
    """Clips of a data set.

    `places` were tried, `clips` could be read, and `failures` has the others by place. `padded` are the places
    of clips that repeat the last frame of a video that is too short.
    """

    places: list[int]
    clips: ClipBatch
    failures: dict[int, ClipFailure]
    padded: list[int]

    @property
    def video(self) -> Tensor:
        """The clips that could be read."""
        return self.clips.video

    @property
    def scale(self) -> PixelScale | None:
        """What turns pixels into network input; None: nothing is left to do."""
        return self.clips.scale

    def __len__(self) -> int:
        return len(self.clips)


def placed_batches(
    clips: ManifestClips, places: Sequence[int], *, batch_size: int, num_workers: int = 0
) -> Iterator[PlacedBatch]:
    """Yield batches of a data set's clips, in the order of `places`."""
    rows = clips.manifest.rows
    left = deque(places)

    def rest() -> DataLoader[Sample]:
        return DataLoader(
            clips,  # type: ignore[arg-type]  # a data set by its methods
            sampler=list(left),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=_with_failures,
            timeout=LOOK_SECONDS if num_workers else 0,
            generator=torch.Generator(),  # else the loader draws from the random state of the process
        )

    for batch, failures, padded in from_workers(rest, lambda: rows[left[0] % len(rows)].path):
        read = [left.popleft() for _ in failures]
        yield PlacedBatch(
            read,
            batch,
            failures={p: f for p, f in zip(read, failures, strict=True) if f is not None},
            padded=[place for place, short in zip(read, padded, strict=True) if short],
        )


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[torch.device]:
    """Put a network in eval mode and back, and yield its device."""
    was_training = network.training
    network.eval()
    try:
        yield next(network.parameters()).device
    finally:
        network.train(was_training)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context in which a network computes: "bf16" is autocast, "fp32" changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def encode(
    network: nn.Module,
    batches: Iterable[C],
    compute: Callable[[Tensor], Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    of: str = "clips",
) -> Iterator[tuple[C, Tensor | None]]:
    """Yield each batch with what a frozen network gives for it, on the CPU; None for a batch without clips.

    Args:
        network: The frozen network; in eval mode while batches are read, and its device does the work.
        batches: Batches of clips.
        compute: From normalised clips (B, 3, T, H, W) on the device to features (B, ...).
        dtype: What features are kept in.
        of: What the clips are, for messages.

    Raises:
        FeaturesError: If features are not finite.
    """
    done, noticed = 0, time.monotonic()
    with eval_mode(network) as device:
        for batch in batches:
            yield batch, _features(batch, compute, device, dtype, of) if len(batch) else None
            done += len(batch)
            if time.monotonic() - noticed > NOTICE_SECONDS:
                noticed = time.monotonic()
                log.info("features of %d %s", done, of)


@torch.no_grad()
def _features(
    batch: Clips, compute: Callable[[Tensor], Tensor], device: torch.device, dtype: torch.dtype, of: str
) -> Tensor:
    video = batch.video.to(device)
    features = compute(video if batch.scale is None else batch.scale.normalised(video))
    if not features.isfinite().all():
        raise FeaturesError(
            f"the network gives values that are not finite on {of}: it has diverged. Use an earlier checkpoint."
        )
    kept = features.to(dtype).cpu()
    if not kept.isfinite().all():
        raise FeaturesError(
            f"features of {of} are too large for fp16. Write features in bf16 or fp32; a probe reads fp16 "
            "only, so give it an earlier checkpoint."
        )
    return kept


def clip_tokens(
    encoder: nn.Module, video: Float[Tensor, "b c vst h w"], spec: ClipSpec
) -> Float[Tensor, "b vsn d"]:
    """Return the tokens of all clips of each video on one axis: (view, segment, layer, token).

    Args:
        encoder: The frozen encoder, in eval mode, or its frozen blocks.
        video: The clips in a row, (view, segment, frame), as `spec.sampler` and `spec.transform` leave them.
        spec: How many clips there are, and which blocks are read.
    """
    if spec.clips_per_video == 1 and spec.layers is None:
        return encoder(video)
    clips = rearrange(video, "b c (v s t) h w -> b s v c t h w", s=spec.segments, v=spec.views)
    joined = join_segments(view_tokens(encoder, clips, layers=spec.layers))
    return rearrange(joined, "b v m d -> b (v m) d")


def view_tokens(
    encoder: nn.Module,
    clips: Float[Tensor, "b segments views c t h w"],
    *,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "b segments views n d"]:
    """Return the tokens of every clip of a video, each clip encoded by itself.

    Args:
        encoder: The frozen encoder, in eval mode.
        clips: Normalised clips (B, segments, views, C, T, H, W): segments follow in time, views lie side by side.
        layers: Blocks whose tokens, normed, stand one block after the other within a clip, as V-JEPA 2 probes
            Diving48 and Jester ([17, 19, 21, 23] of a ViT-L); None: the last block's.
    """
    _, segments, views = clips.shape[:3]
    flat = rearrange(clips, "b s v c t h w -> (b s v) c t h w")
    if layers is None:
        levels = [encoder(flat)]
    else:
        assert isinstance(encoder, VideoEncoder)
        levels = encoder.forward_intermediates(flat, layers)
    return rearrange(torch.cat(levels, dim=1), "(b s v) n d -> b s v n d", s=segments, v=views)


def join_segments(
    tokens: Float[Tensor, "b segments views n d"],
) -> Float[Tensor, "b views m d"]:
    """Return tokens (B, views, segments * N, D): the segments of a view in a row, as one long clip."""
    return rearrange(tokens, "b s v n d -> b v (s n) d")


def _with_failures(samples: Sequence[Sample]) -> tuple[ClipBatch, list[ClipFailure | None], list[bool]]:
    failures, padded = [sample.failure for sample in samples], [sample.is_padded for sample in samples]
    return collate(samples), failures, padded
