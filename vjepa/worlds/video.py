"""Writing of mp4 files that decode fast: h264, yuv420p, one keyframe, no B-frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from vjepa.files import replacing

CRF = 22  # quality of x264, 0 (lossless) to 51; low enough to keep the noise


def write_video(path: Path, frames: UInt8[np.ndarray, "t h w 3"], *, fps: float) -> None:
    """Write RGB frames, of even height and width, to an mp4 file, whole or not at all; its folder must exist."""
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {
            "preset": "veryfast",
            "crf": str(CRF),
            # no B-frames, and no lookahead: on such small pictures x264's lookahead reads uninitialised
            # memory, so that one file in some hundreds was different
            "tune": "zerolatency",
            "sc_threshold": "0",
            "g": str(len(frames)),
        }
        for rgb in frames:
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            # convert here with one thread: the encoder's own conversion is not deterministic
            container.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
        container.mux(stream.encode())
