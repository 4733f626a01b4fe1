"""Times the embedded world: clips a second of generating it, milliseconds to open and decode a clip.

python tools/bench_world.py [--clips 512] [--processes 2]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from vjepa.worlds import WorldConfig, generate


def clips_per_second(config: WorldConfig, folder: Path) -> float:
    """Of a whole `generate`, with starting the processes, manifests and sheet."""
    started = time.perf_counter()
    generate(config, folder)
    return (config.num_train + config.num_val) / (time.perf_counter() - started)


def decode_milliseconds(folder: Path, decoder: str) -> list[float]:
    """Of each clip: opened, all frames decoded, closed."""
    from vjepa.data import (
        decoder_class,
    )  # not above: the drawing processes import this file, and need no torch

    backend, times = decoder_class(decoder), []
    for path in sorted(folder.rglob("*.mp4")):
        started = time.perf_counter()
        video = backend.open(path)
        video.frames_at(list(range(len(video.timestamps))))
        video.close()
        times.append(1e3 * (time.perf_counter() - started))
    return times


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--size", type=int, default=WorldConfig.size)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--decoder", default="pyav")
    given = parser.parse_args()
    config = WorldConfig(num_train=given.clips, num_val=1, size=given.size, num_workers=given.processes)
    with tempfile.TemporaryDirectory() as scratch:
        rate = clips_per_second(config, Path(scratch))
        kilobytes = [path.stat().st_size / 1e3 for path in Path(scratch).rglob("*.mp4")]
        times = decode_milliseconds(Path(scratch), given.decoder)
    print(f"{given.clips} clips of {config.num_frames} frames at {config.size} x {config.size}")
    print(f"generating with {given.processes} processes: {rate:.0f} clips a second")
    print(f"a clip: {statistics.mean(kilobytes):.1f} kB")
    print(f"decoding with {given.decoder}: median {statistics.median(times):.2f} ms a clip")


if __name__ == "__main__":
    main()
