"""Memory of a decoder backend over thousands of opens in one process.

    python tools/bench_data_memory.py [--decoders pyav,torchcodec,decord,frames] [--opens 5000] [--limit 0]

Each open decodes 4 frames of one of a few small videos. What the process holds after the first tenth of the opens is
the start; the growth from there to the end is printed, in MB. Every backend runs in a process of its own. With
`--limit SECONDS` the backend works in the child process of the time limit, and its child's memory counts too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vjepa.data.decoders.limited import LimitedOpener, opener

VIDEOS, FRAMES, WIDTH, HEIGHT = 4, 30, 340, 256


def write_videos(folder: Path) -> None:
    """Videos, and folders of frames beside them."""
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        frames = (
            rng.integers(0, 255, (FRAMES, HEIGHT // 8, WIDTH // 8 + 1, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        )
        (folder / f"frames_{number}").mkdir()
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", 12
            for t, pixels in enumerate(np.ascontiguousarray(frames[:, :, :WIDTH])):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                Image.fromarray(pixels).save(folder / f"frames_{number}" / f"{t}.jpg")
            container.mux(stream.encode(None))


def resident(reader: object) -> int:
    """Bytes that this process holds, and the child of a time limit."""
    pids = ["self", reader.pid] if isinstance(reader, LimitedOpener) else ["self"]
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(decoder: str, folder: Path, opens: int, limit: float) -> None:
    """Print the growth of one backend."""
    reader = opener(decoder, limit)
    paths = sorted(folder.glob("frames_*") if decoder == "frames" else folder.glob("*.mp4"))
    rng = np.random.default_rng(0)
    start = most = 0
    for number in range(opens):
        if number == opens // 10:
            start = most = resident(reader)
        with reader.open(paths[number % len(paths)]) as video:
            video.frames_at(sorted(rng.integers(0, FRAMES, 4).tolist()))
        if number % 250 == 249:
            most = max(most, resident(reader))
    growth = (resident(reader) - start) / 1e6
    print(
        f"{decoder:10} {opens} opens: {start / 1e6:.0f} MB at the start, {growth:+.1f} MB at the end, ",
        end="",
    )
    print(f"{(most - start) / 1e6:+.1f} MB at most")


def main() -> None:
    """Run each backend in its own process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decoders", default="pyav,torchcodec,decord,frames")
    parser.add_argument("--opens", type=int, default=5000)
    parser.add_argument("--limit", type=float, default=0.0)
    parser.add_argument("--folder", type=Path, help="of the videos, if they are there already")
    given = parser.parse_args()
    if given.folder is not None:
        return measure(given.decoders, given.folder, given.opens, given.limit)
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder))
        for decoder in given.decoders.split(","):
            options = ["--decoders", decoder, "--opens", str(given.opens), "--limit", str(given.limit)]
            subprocess.run([sys.executable, __file__, *options, "--folder", folder], check=False)


if __name__ == "__main__":
    main()
