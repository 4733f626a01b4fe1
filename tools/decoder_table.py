"""Every file of a folder by every decoder backend: right frames, or the one named error. Prints a markdown table.

    python tools/decoder_table.py FOLDER [--seconds 10]

Each file is decoded to its end in a child process that is killed after `--seconds`. "right" means that every frame
and every time is equal to the bit to what the other backends that read the file give.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from vjepa.data import DecodeError
from vjepa.data.decoders.limited import LimitedOpener

BACKENDS = ("pyav", "torchcodec", "decord")
FRAMES_AT_ONCE = 32  # bounds the memory that a long video takes


class Cell(NamedTuple):
    """What a backend made of a file: a digest of frames and times, and how many of what size; or an error."""

    digest: str = ""
    found: str = ""
    error: str = ""
    seconds: float = 0.0


def decode(process: LimitedOpener, path: Path) -> Cell:
    """All frames of a file."""
    began = time.monotonic()
    digest, size = hashlib.sha256(), ""
    try:
        with process.open(path) as video:
            digest.update(video.timestamps.round(6).tobytes())
            for start in range(0, video.num_frames, FRAMES_AT_ONCE):
                frames = video.frames_at(list(range(start, min(start + FRAMES_AT_ONCE, video.num_frames))))
                digest.update(frames.permute(0, 2, 3, 1).contiguous().numpy())
                size = f"{frames.shape[3]} x {frames.shape[2]}"
            return Cell(digest.hexdigest(), f"{video.num_frames} of {size}", "", time.monotonic() - began)
    except DecodeError as e:
        return Cell("", "", e.reason, time.monotonic() - began)


def main() -> int:
    """Print the table; exit code 1 where a cell is neither right nor an error within the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    processes = {name: LimitedOpener(decoder=name, seconds=given.seconds) for name in BACKENDS}
    print(f"| file | frames | {' | '.join(BACKENDS)} |\n|---|---|{'---|' * len(BACKENDS)}")
    wrong, slowest = 0, 0.0
    for path in sorted(file for file in given.folder.rglob("*") if file.is_file()):
        cells = [decode(process, path) for process in processes.values()]
        digests = Counter(cell.digest for cell in cells if cell.digest)
        right = digests.most_common(1)[0][0] if digests else ""
        texts = []
        for cell in cells:
            texts.append(cell.error or ("right" if cell.digest == right else f"differs ({cell.found})"))
            slowest = max(slowest, cell.seconds)
            wrong += cell.seconds > given.seconds or (bool(cell.digest) and cell.digest != right)
        found = next((cell.found for cell in cells if cell.digest == right and right), "none")
        print(f"| {path.relative_to(given.folder).as_posix()} | {found} | {' | '.join(texts)} |", flush=True)
    print(
        f"\n{wrong} cells neither right nor an error within {given.seconds:g} s; the slowest took {slowest:.1f} s."
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
