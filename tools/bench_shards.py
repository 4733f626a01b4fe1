"""Clips a second from files, from shards, and over HTTP: each way to read the same clips, in one run.

python tools/bench_shards.py --num_clips 200 --latency_ms 5
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the tests' videos and server

from tests.given.servers import serving
from tests.videos import write_manifest
from vjepa.commands.data_shard import shard_command
from vjepa.data import ClipSampler, TrainTransform, VideoDataModule
from vjepa.data.loading.mixture import MixturePart

STREAM_BYTES = 64_000_000


def clips_a_second(part: MixturePart, num_workers: int) -> float:
    """Of one whole epoch, from the first batch asked for to the last one there."""
    data = VideoDataModule(
        parts=[part],
        sampler=ClipSampler(num_frames=16, fps=7.5),
        transform=TrainTransform(size=224),
        batch_size=10,
        num_workers=num_workers,
    )
    data.setup("fit")
    loader = data.train_dataloader()
    begin = time.perf_counter()
    clips = sum(len(batch) for batch in loader)
    seconds = time.perf_counter() - begin
    loader.close()
    return clips / seconds


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_clips", type=int, default=200)
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--latency_ms", type=float, default=0.0, help="of each answer of the server")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        size = {"num_frames": 300, "height": 256, "width": 340, "fps": 30.0, "gop": 250}
        manifest = write_manifest(folder, given.num_clips, **size)
        shards = f"{folder}/shards"
        begin = time.perf_counter()
        report = shard_command(source=str(manifest), out=shards, clips_per_shard=50)
        seconds, mb = time.perf_counter() - begin, report.figures["num_bytes"] / 1e6
        print(f"data shard: {given.num_clips / seconds:.1f} clips/s, {mb:.1f} MB in all")
        with serving(Path(folder)) as served:
            served.latency = given.latency_ms / 1000
            ways = {
                "files": MixturePart(source=str(manifest)),
                "shards": MixturePart(source=shards),
                "shards, streamed": MixturePart(source=shards, stream_bytes=STREAM_BYTES),
                "http files": MixturePart(source=f"{served.url}/train.csv"),
                "http shards": MixturePart(source=f"{served.url}/shards"),
                "http shards, streamed": MixturePart(
                    source=f"{served.url}/shards", stream_bytes=STREAM_BYTES
                ),
            }
            measured: dict[str, list[float]] = {name: [] for name in ways}
            requests: dict[str, int] = {}
            for _ in range(given.repeats):
                for name, part in ways.items():
                    served.gets.clear()
                    measured[name].append(clips_a_second(part, given.num_workers))
                    requests[name] = len(served.gets)
    for name, rates in measured.items():
        print(f"{name:24}{statistics.median(rates):8.1f} clips/s {requests[name]:6d} requests")


if __name__ == "__main__":
    main()
