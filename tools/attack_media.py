"""Read odd media by index and compare with a full decode from the start: number, order, times and pixels.

    python tools/attack_media.py --out /tmp/media [--also FOLDER]

Each line names a file and says "same", "refused: REASON" or what is wrong. The exit code is 1 if one was read wrongly.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.given.media import write_media
from vjepa.data import DecodeError, Decoder, decoder_class

ORDERS = ([-1], [0], [17], [30, 5], [13], [48, 2, 25])


def full_decode(path: Path) -> tuple[list[float | None], list[np.ndarray], list[bool]]:
    """Decode a file once, in one thread; return each frame's time, its RGB pixels, and whether it is damaged."""
    times: list[float | None] = []
    frames: list[np.ndarray] = []
    damaged: list[bool] = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                pixels = frame.reformat(format="rgb24", threads=1).to_ndarray()
                frames.append(np.rot90(pixels, round(frame.rotation / 90) % 4))
                times.append(frame.time)
                damaged.append(frame.is_corrupt)
    return times, frames, damaged


def compare(path: Path, decoder: type[Decoder]) -> str:
    """Return "same", or what differs between random access and a full decode."""
    times, frames, damaged = full_decode(path)
    try:
        with decoder.open(path) as video:
            if video.num_frames != len(frames):
                return f"WRONG: {video.num_frames} frames, a full decode gives {len(frames)}"
            if (np.diff(video.timestamps) <= 0).any():
                return "WRONG: times do not rise"
            if None not in times and (np.diff(times) > 0).all():
                off = float(np.abs(video.timestamps - times).max())
                if off > 1e-3:
                    return f"WRONG: times differ by {off:.3f} s"
        shuffled = np.random.default_rng(0).permutation(min(len(frames), 60))
        orders = [*ORDERS, *np.array_split(shuffled, 12)]
        for order in orders:
            wanted = [int(index + len(frames)) % len(frames) for index in order] or [0]
            with decoder.open(path) as video:
                found = video.frames_at(wanted).permute(0, 2, 3, 1).numpy()
            for place, index in enumerate(wanted):
                if damaged[index]:
                    return f"WRONG: damaged frame {index} was returned"
                if found[place].shape != frames[index].shape or (found[place] != frames[index]).any():
                    return f"WRONG: frame {index} of {wanted} has other pixels"
    except DecodeError as e:
        note = f" ({sum(damaged)} of {len(damaged)} frames are damaged)" if any(damaged) else ""
        return f"refused: {e.reason}; a full decode gives {len(frames)}{note}"
    return "same"


def main() -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="folders with more files")
    parser.add_argument("--only", default="", help="read the files whose names have this")
    parser.add_argument("--decoder", default="pyav")
    given = parser.parse_args()
    av.logging.set_level(None)
    made = write_media(given.out)
    files = {name: path for name, path in made.items() if isinstance(path, Path)}
    for name, reason in sorted(made.items()):
        if isinstance(reason, str):
            sys.stdout.write(f"not made  {name}: {reason[:90]}\n")
    for folder in given.also:
        files |= {f"{folder.name}/{path.name}": path for path in sorted(folder.iterdir()) if path.is_file()}
    decoder, counts = decoder_class(given.decoder), Counter[str]()
    for name, path in files.items():
        if given.only not in name:
            continue
        try:
            result = compare(path, decoder)
        except (av.error.FFmpegError, IndexError, ValueError, AttributeError, TypeError) as e:
            result = f"not compared: {type(e).__name__}: {e}"
        counts[result.split(":")[0]] += 1
        sys.stdout.write(f"{name:32} {result}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{dict(counts)}\n")
    return 1 if counts["WRONG"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
