"""Reader of one clip from one file, for a notebook or a command."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vjepa.data.decoders.base import decoder_class
from vjepa.data.decoders.opening import open_video
from vjepa.data.sampling import ClipSampler
from vjepa.types import Clip


def read_clip(
    path: str | Path,
    *,
    num_frames: int = 16,
    fps: float | None = 4.0,
    start_seconds: float = 0.0,
    decoder: str = "auto",
) -> Clip:
    """Decode one clip.

    Args:
        path: The video file, or a URL that fsspec opens.
        num_frames: Frames in the clip; a video that ends earlier repeats its last frame.
        fps: Frames per second of video; None takes every frame.
        start_seconds: Start of the clip, in seconds after the first frame.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of your own `Decoder`.

    Returns:
        `frames` uint8 RGB (T, C, H, W) and their `timestamps` (T,) in seconds.

    Raises:
        DecodeError: If the file cannot be read.
        ShortVideoError: If the video ends before `start_seconds`.
    """
    import torch

    sampler = ClipSampler(num_frames=num_frames, fps=fps, position="start")
    with open_video(decoder_class(decoder), path) as video:
        timestamps = video.timestamps
        start = float(timestamps[0]) + start_seconds if start_seconds else None
        indices = sampler.sample(timestamps, np.random.default_rng(0), start=start)
        frames = video.frames_at(indices.tolist())
    return Clip(frames=frames, timestamps=torch.from_numpy(timestamps[indices]), path=str(path))
