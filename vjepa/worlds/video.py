"""Writes frames as an mp4 file: h264, yuv420p, one keyframe, no B-frames, so that it is quick to decode."""

from __future__ import annotations

import os
import uuid
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

CRF = 22  # quality of x264, 0 (lossless) to 51: the noise must survive


def write_video(path: Path, frames: UInt8[np.ndarray, "t h w 3"], *, fps: float) -> None:
    """Writes RGB frames, whole or not at all: a killed write leaves no file of that name.

    Args:
        path: Of the mp4 file; the folder must exist.
        frames: RGB (T, H, W, 3); height and width even.
        fps: Frames a second.
    """
    partial = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.part")
    rate = Fraction(fps).limit_denominator(1001)
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1
            stream.options = {
                "preset": "veryfast",
                "crf": str(CRF),
                # without lookahead: on pictures this small x264's own reads memory that nobody wrote, so that
                # one file in some hundreds came out different; also without B-frames
                "tune": "zerolatency",
                "sc_threshold": "0",
                "g": str(len(frames)),
            }
            for rgb in frames:
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                # converted here, by one thread: left to the encoder, it is not the same every time
                container.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
            container.mux(stream.encode())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
