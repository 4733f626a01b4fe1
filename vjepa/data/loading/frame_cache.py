"""Decoded videos kept in memory and shared by the worker processes: small videos are decoded once per run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float64, UInt8
from torch import Tensor

from vjepa.data.decoders.base import Decoder, Opener
from vjepa.data.decoders.opening import open_video
from vjepa.errors import DecodeError

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
MAX_TRIED = 8  # files tried to find one whose shape stands for all


class FrameCache:
    """Whole decoded videos of one shape, uint8, by file.

    `shape` is frames, channels, height and width of each. In `shared` memory, each worker process sees what the others
    decoded.
    """

    def __init__(self, *, paths: Sequence[str], shape: tuple[int, int, int, int], shared: bool) -> None:
        self.shape = shape
        self._slots = {path: slot for slot, path in enumerate(dict.fromkeys(paths))}
        frames, channels, height, width = shape
        # channels last in memory, as decoded: resizing a crop is then 1.5 times as fast
        room = _room((len(self._slots), frames, height, width, channels), torch.uint8, shared)
        self._frames = rearrange(room, "s t h w c -> s t c h w")
        self._timestamps = _room((len(self._slots), shape[0]), torch.float64, shared)
        self._filled = _room((len(self._slots),), torch.uint8, shared).zero_()

    @property
    def num_bytes(self) -> int:
        """Memory when all videos are kept."""
        return self._frames.nbytes + self._timestamps.nbytes

    def find(self, path: str) -> tuple[Float64[Tensor, "n"], UInt8[Tensor, "n c h w"]] | None:
        """Return timestamps and frames of `path` if they are kept."""
        slot = self._slots.get(path)
        if slot is None or not self._filled[slot]:
            return None
        return self._timestamps[slot], self._frames[slot]

    def keep(self, path: str, video: Decoder) -> bool:
        """Decode all of `video` and keep it; return False if its shape differs."""
        slot = self._slots.get(path)
        if slot is None or video.num_frames != self.shape[0]:
            return False
        frames = video.frames_at(list(range(video.num_frames)))
        if tuple(frames.shape) != self.shape:
            return False
        self._frames[slot] = frames
        self._timestamps[slot] = torch.from_numpy(video.timestamps)
        self._filled[slot] = 1  # last: another process may read at any time
        return True

    def __len__(self) -> int:
        return int(self._filled.sum())


def cache_for(paths: Sequence[str], *, decoder: Opener, limit_bytes: int, shared: bool) -> FrameCache | None:
    """Return a cache for these files if they fit, judged by the first readable one; else log why and return `None`."""
    shape = next((s for s in (_shape(path, decoder) for path in paths[:MAX_TRIED]) if s is not None), None)
    if shape is None:
        log.info("decoded frames are not kept in memory: none of the first %d files can be read", MAX_TRIED)
        return None
    num_files = len(set(paths))
    needed = num_files * shape[0] * (shape[1] * shape[2] * shape[3] + 8)
    text = f"decoded frames of {num_files} files, {needed / 1e6:.1f} MB"
    if needed > limit_bytes:
        log.info("%s, are not kept in memory: %.1f MB are allowed", text, limit_bytes / 1e6)
        return None
    if shared and SHARED_MEMORY.exists() and (free := shutil.disk_usage(SHARED_MEMORY).free) < needed:
        log.info("%s, are not kept in memory: %s has %.1f MB free", text, SHARED_MEMORY, free / 1e6)
        return None
    log.info("%s, are kept in memory when they are read", text)
    return FrameCache(paths=paths, shape=shape, shared=shared)


def _shape(path: str, decoder: Opener) -> tuple[int, int, int, int] | None:
    try:
        with open_video(decoder, path) as video:
            _, channels, height, width = video.frames_at([0]).shape
            return video.num_frames, channels, height, width
    except DecodeError:
        return None  # counted and listed when its clip is read


def _room(shape: tuple[int, ...], dtype: torch.dtype, shared: bool) -> Tensor:
    room = torch.empty(shape, dtype=dtype)
    return room.share_memory_() if shared else room
