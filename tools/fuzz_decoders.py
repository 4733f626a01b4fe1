"""Broken videos by every decoder backend: no hang, no crash of the run, each outcome counted and reported.

    python tools/fuzz_decoders.py --files 500 --seed 0 --decoders pyav,torchcodec,decord --out report.csv

The files are small clips of several codecs and containers with flipped bits, cut ends, swapped parts, zeros, or
lying headers; the same seed makes the same files. Each is decoded to its end in a child process.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from vjepa.data import DecodeError
from vjepa.data.decoders.limited import LimitedOpener

SEEDS = {  # suffix of a container -> codec
    "h264.mp4": "libx264",
    "h264.mkv": "libx264",
    "h264.ts": "libx264",
    "hevc.mp4": "libx265",
    "vp9.webm": "libvpx-vp9",
    "mpeg4.avi": "mpeg4",
    "mjpeg.avi": "mjpeg",
    "mpeg2.mpg": "mpeg2video",
}
FRAMES, SIDE, FPS = 30, 64, 25
HEADER_BYTES = 1500
HUNG, CRASHED, READ, REFUSED, BUG = "hung", "crashed", "read", "refused", "other error"
DIFFERS = "read as other frames"  # than the first decoder that read the file


def flipped(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Some bits flipped, anywhere."""
    for at in rng.integers(0, len(data), rng.integers(1, 60)):
        data[at] ^= 1 << rng.integers(0, 8)
    return data


def cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The end missing."""
    return data[: rng.integers(1, len(data))]


def swapped(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Two parts exchanged; of an mp4, two of its boxes."""
    edges = boxes(data) if data[4:8] == b"ftyp" else sorted(rng.integers(0, len(data), 5).tolist())
    parts = [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]
    first, second = rng.choice(len(parts), 2, replace=False)
    parts[first], parts[second] = parts[second], parts[first]
    return bytearray().join(parts)


def zeroed(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A stretch of zeros."""
    start = int(rng.integers(0, len(data)))
    length = int(rng.integers(1, len(data) // 3))
    data[start : start + length] = bytes(len(data[start : start + length]))
    return data


def lying(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Numbers of the header (of an mp4, its tables) replaced: counts, sizes, times, offsets."""
    start = max(data.find(b"moov"), 0)
    for at in rng.integers(start, min(start + HEADER_BYTES, len(data) - 4), rng.integers(1, 8)):
        data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", rng.bytes(4)])
    return data


WAYS: list[Callable[[bytearray, np.random.Generator], bytearray]] = [flipped, cut, swapped, zeroed, lying]


def boxes(data: bytearray) -> list[int]:
    """Where the boxes of an mp4 begin, without the first."""
    edges, at = [], 0
    while at + 8 <= len(data):
        at += max(int.from_bytes(data[at : at + 4], "big"), 8)
        edges.append(min(at, len(data)))
    return edges[:-1]


def write_seed(path: Path, codec: str) -> bytes:
    """A small whole video."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width = stream.height = SIDE
        stream.gop_size, stream.pix_fmt = 12, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        for t in range(FRAMES):
            pixels = np.stack([rows * 3 + 4 * t, columns * 3 - 5 * t, rows + columns + t], -1) % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def outcome(process: LimitedOpener, path: Path) -> tuple[str, str]:
    """What the backend made of the file, and its reason."""
    try:
        with process.open(path) as video:
            frames = video.frames_at(list(range(video.num_frames)))
            digest = hashlib.sha256(frames.permute(0, 2, 3, 1).contiguous().numpy()).hexdigest()
            return READ, f"{len(frames)} frames, digest {digest[:16]}"
    except DecodeError as e:
        kinds = {"no frame after": HUNG, "crashed (": CRASHED}
        return next((kind for sign, kind in kinds.items() if sign in e.reason), REFUSED), e.reason
    except (IndexError, ValueError, TypeError, RuntimeError, OSError, MemoryError, AttributeError) as e:
        return BUG, f"{type(e).__name__}: {e}"


def main() -> int:
    """Count the outcomes; exit code 1 where one was neither frames nor a named error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decoders", default="pyav,torchcodec,decord")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, help="CSV of every file by every decoder")
    given = parser.parse_args()
    processes = {n: LimitedOpener(decoder=n, seconds=given.seconds) for n in given.decoders.split(",")}
    counts: dict[str, Counter[str]] = {name: Counter() for name in processes}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        whole = [(name, write_seed(Path(folder) / name, codec)) for name, codec in SEEDS.items()]
        for number in range(given.files):
            rng = np.random.default_rng([given.seed, number])
            way = WAYS[number % len(WAYS)]
            name, data = whole[number // len(WAYS) % len(whole)]
            path = Path(folder) / f"{number:04d}_{way.__name__}_{name}"
            path.write_bytes(way(bytearray(data), rng))
            read = ""
            for decoder, process in processes.items():
                kind, reason = outcome(process, path)
                if kind == READ:
                    read = read or reason
                    kind = READ if reason == read else DIFFERS
                counts[decoder][kind] += 1
                rows.append((path.name, decoder, kind, " ".join(reason.split())))
                if kind not in (READ, REFUSED):
                    print(f"{decoder}: {path.name}: {kind}: {rows[-1][3]}", flush=True)
            path.unlink()
    for decoder, count in counts.items():
        print(
            f"{decoder:10} {count.total()} files: {', '.join(f'{n} {kind}' for kind, n in sorted(count.items()))}"
        )
    if given.out is not None:
        with given.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "decoder", "outcome", "reason"), *rows])
    return int(any(count[kind] for count in counts.values() for kind in (HUNG, BUG)))


if __name__ == "__main__":
    sys.exit(main())
