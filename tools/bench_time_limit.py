"""What the wall-clock limit of a decode costs: milliseconds a clip with and without it, in turns, in one run."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from vjepa.data.decoders.limited import opener

FRAMES, SEED = 300, 0
CLIPS_OF_A_BLOCK = 10  # in a row with, then without: in turns the two would empty each other's caches


def write_clip(path: Path, *, width: int = 340, height: int = 256, gop: int = 250) -> Path:
    """A clip as Kinetics has them: 10 s of h264 at 30 frames a second, one keyframe in 250."""
    rng = np.random.default_rng(SEED)
    texture = rng.integers(0, 255, (height // 4, width // 4 + FRAMES, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", gop
        for t in range(FRAMES):
            pixels = np.ascontiguousarray(texture[:, 2 * t : 2 * t + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def main() -> None:
    """Time clips of 16 frames, every 4th, from random starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", default="pyav")
    parser.add_argument("--blocks", type=int, default=10)
    given = parser.parse_args()
    rng = np.random.default_rng(SEED)
    openers = {name: opener(given.decoder, seconds) for name, seconds in (("no limit", 0.0), ("limit", 60.0))}
    times: dict[str, list[float]] = {name: [] for name in openers}
    with tempfile.TemporaryDirectory() as folder:
        path = write_clip(Path(folder) / "clip.mp4")
        for block in range(given.blocks + 1):
            starts = rng.integers(0, FRAMES - 64, CLIPS_OF_A_BLOCK)
            for name, reader in openers.items():
                for start in starts:
                    began = time.perf_counter()
                    with reader.open(path) as video:
                        video.frames_at(list(range(start, start + 64, 4)))
                    if block:  # the first starts the child and fills the caches
                        times[name].append(1000 * (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in times.items()}
    extra = statistics.median(b - a for a, b in zip(times["no limit"], times["limit"], strict=True))
    for name, value in medians.items():
        print(f"{given.decoder:10}  {name:9} {value:6.2f} ms a clip (median of {len(times[name])})")
    print(f"the limit costs {extra:.2f} ms a clip, {100 * extra / medians['no limit']:.1f} %")


if __name__ == "__main__":
    main()
