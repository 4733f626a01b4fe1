"""The default backend: `frames` for images, else the fastest one that works on this machine.

With a packet index, `indexed.py` opens the video in its place.
"""

from __future__ import annotations

import functools
import logging
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from einops import rearrange

from vjepa.data.decoders.backends.frames import is_frames
from vjepa.data.decoders.base import Decoder, decoder_class
from vjepa.errors import DecodeError, MissingPackageError
from vjepa.worlds.video import write_video

log = logging.getLogger(__name__)

ORDER = ("pyav", "torchcodec", "decord")  # fastest first, as tools/bench_data.py measures them
NUM_FRAMES, SIDE = 8, 64  # of the video for the trial of a backend


class AutoDecoder(Decoder):
    """A decoder that opens images with `frames`, and all other files with the first of ORDER that works.

    The choice does not change the frames: those of all backends are equal to the bit.
    """

    @classmethod
    def open(cls, path: str | Path) -> Decoder:
        return decoder_class("frames" if is_frames(path) else fastest()).open(path)


@functools.cache
def fastest() -> str:
    """Return the first backend of ORDER that decodes a new video here; each is tried once per process.

    Raises:
        ImportError: If none does, with the cause for each.
    """
    causes: list[str] = []
    for name in ORDER:
        tried = trial(name)
        if tried.works:
            skipped = f" ({'; '.join(causes)})" if causes else ""
            log.info("decoder auto: videos are read with %s%s", name, skipped)
            return name
        causes.append(f"{name}: {tried.detail}")
    raise MissingPackageError(
        f"no decoder works here. {'; '.join(causes)}. Repair one of them; `vjepa doctor` tries all."
    )


class Trial(NamedTuple):
    """The result of trying a backend: whether it works, and its figures or the true cause of its failure."""

    works: bool
    detail: str


def trial(name: str) -> Trial:
    """Write an h264 video (for `frames`, images), decode it with a backend and compare."""
    ramp = np.linspace(0, 255, SIDE, dtype=np.uint8)
    frames = np.broadcast_to(ramp[None, :, None, None], (NUM_FRAMES, SIDE, SIDE, 3)).copy()
    with tempfile.TemporaryDirectory(prefix="vjepa-decoder-") as folder:
        if name == "frames":
            path = _write_images(Path(folder), frames)
        else:
            path = Path(folder) / "try.mp4"
            write_video(path, frames, fps=8.0)
        began = time.perf_counter()
        try:
            with decoder_class(name).open(path) as video:
                decoded = video.frames_at(list(range(NUM_FRAMES)))
        except (DecodeError, ImportError, OSError, RuntimeError, ValueError) as failure:
            return Trial(False, " ".join(str(failure).split()))
        milliseconds = 1000 * (time.perf_counter() - began)
    error = np.abs(rearrange(decoded.numpy(), "t c h w -> t h w c").astype(int) - frames).mean()
    return Trial(True, f"{NUM_FRAMES} frames in {milliseconds:.1f} ms, mean error {error:.1f} of 255")


def _write_images(folder: Path, frames: np.ndarray) -> Path:
    from PIL import Image

    for number, pixels in enumerate(frames):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder
