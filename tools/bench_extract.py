"""Throughput of `vjepa extract` beside the bare encoder loop, and its memory.

    python tools/bench_extract.py --num_windows 1000 --rounds 3 [--img_size 224] [--precision bf16]
    python tools/bench_extract.py --hour            # one video of an hour: memory against a video of a minute

Prints windows per second of the bare loop (one batch in memory, again and again) and of ours (real files to a folder).
Where transformers is installed, also of its VJEPA2 of the same size, fed by a plain loader: PyAV, one clip after the
other, and transformers' own processor.
The three take turns, so that a change of the machine's load meets all of them.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import vjepa
from vjepa.commands.extract import ClipFlags, WorkFlags, extract
from vjepa.features.encode import Precision
from vjepa.worlds.video import write_video

SIZES = {"img_size": 128, "num_frames": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}
BATCH = 8


def make_videos(folder: Path, count: int, num_frames: int, seed: int = 0) -> None:
    """Write short moving videos."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        base = np.kron(rng.integers(0, 255, (16, 20, 3)), np.ones((12, 16, 1))).astype(np.uint8)
        frames = np.stack([np.roll(base, 3 * t, axis=1) for t in range(num_frames)])
        write_video(folder / f"{i:04d}.mp4", frames, fps=25.0)


def bare(encoder: torch.nn.Module, count: int, precision: Precision) -> float:
    """Measure windows per second of the encoder alone."""
    video = torch.randn(BATCH, 3, 16, SIZES["img_size"], SIZES["img_size"])
    began = time.perf_counter()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for _ in range(count // BATCH):
            encoder(video).mean(dim=1)
    return count // BATCH * BATCH / (time.perf_counter() - began)


def ours(encoder: str, data: Path, num_workers: int, precision: Precision) -> float:
    """Measure windows per second of `vjepa extract`."""
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        report = extract(
            encoder=encoder,
            data=str(data),
            out=Path(out),
            clips=ClipFlags(window=0.64),
            work=WorkFlags(batch_size=BATCH, num_workers=num_workers, precision=precision),
        )
        return report.figures["num_clips"] / (time.perf_counter() - began)


def theirs(data: Path, count: int, precision: Precision) -> float | None:
    """Measure windows per second of transformers' model; None where it is missing."""
    try:
        from transformers import VJEPA2Config, VJEPA2Model, VJEPA2VideoProcessor
    except ImportError:
        return None
    config = VJEPA2Config(
        crop_size=SIZES["img_size"], frames_per_clip=16, hidden_size=SIZES["embed_dim"],
        num_hidden_layers=SIZES["depth"], num_attention_heads=SIZES["num_heads"],
    )  # fmt: skip
    side = SIZES["img_size"]
    look = VJEPA2VideoProcessor(crop_size={"height": side, "width": side}, size={"shortest_edge": side})
    model = VJEPA2Model(config).eval()
    done, began = 0, time.perf_counter()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for path in sorted(data.iterdir()):
            starts = [0.64 * k for k in range(4)]
            clips = [vjepa.read_clip(path, num_frames=16, fps=25.0, start_seconds=s) for s in starts]
            ready = [look(clip.frames, return_tensors="pt")["pixel_values_videos"] for clip in clips]
            for part in torch.cat(ready).split(BATCH):
                model(part, skip_predictor=True).last_hidden_state.mean(dim=1)
                done += len(part)
            if done >= count:
                break
    return done / (time.perf_counter() - began)


def peak_mb() -> float:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def hour(folder: Path, minutes: int) -> None:
    """Print the peak memory of a process that extracts a long video, and of its decoder."""
    from vjepa.data import read_manifest  # noqa: F401  loaded before memory is looked at

    make_videos(folder / "piece", 1, 25 * 60)
    piece = next((folder / "piece").iterdir())
    long = folder / "long.mp4"
    import av

    with av.open(str(piece)) as source, av.open(str(long), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [p for p in source.demux(video=0) if p.dts is not None]
        span = 60 / packets[0].time_base
        for minute in range(minutes):
            source.seek(0)
            for packet in source.demux(video=0):
                if packet.dts is None:
                    continue
                packet.pts, packet.dts = packet.pts + int(minute * span), packet.dts + int(minute * span)
                packet.stream = stream
                target.mux(packet)
    small = vjepa.VideoEncoder(img_size=64, num_frames=8, embed_dim=48, depth=2, num_heads=2)
    small.save_pretrained(folder / "small")
    for name, path in (("1 minute", piece), (f"{minutes} minutes", long)):
        program = (
            "import resource, sys; from pathlib import Path; from vjepa.commands.extract import ClipFlags, extract\n"
            f"r = extract(encoder={str(folder / 'small')!r}, data={str(path)!r}, out=Path(sys.argv[1]),\n"
            "            clips=ClipFlags(window=2.0))\n"
            "mb = [resource.getrusage(w).ru_maxrss // 1024 for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
            "print(r.figures['num_clips'], 'windows,', r.figures['seconds'], 's, peak MB', mb)"
        )
        found = subprocess.run(
            [sys.executable, "-c", program, str(folder / name)], capture_output=True, text=True, check=True
        )
        print(f"{name}: {found.stdout.strip()}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--num_windows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num_workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--img_size", type=int, default=128)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--hour", action="store_true")
    parser.add_argument("--minutes", type=int, default=60)
    given = parser.parse_args()
    SIZES["img_size"] = given.img_size
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        if given.hour:
            hour(folder, given.minutes)
            return
        make_videos(folder / "videos", max(1, given.num_windows // 4), 64)
        encoder = vjepa.VideoEncoder(**SIZES).eval()
        encoder.save_pretrained(folder / "encoder")
        found: dict[str, list[float]] = {}
        for _ in range(given.rounds):
            loops = {"bare": bare(encoder, given.num_windows, given.precision)}
            for workers in given.num_workers:
                loops[f"extract, {workers} workers"] = ours(
                    str(folder / "encoder"), folder / "videos", workers, given.precision
                )
            if (other := theirs(folder / "videos", given.num_windows, given.precision)) is not None:
                loops["transformers"] = other
            for name, rate in loops.items():
                found.setdefault(name, []).append(rate)
            print(
                ", ".join(f"{k} {v:.2f}/s" for k, v in loops.items()), f"peak {peak_mb():.0f} MB", flush=True
            )
        for name, rates in found.items():
            shares = [rate / b for rate, b in zip(rates, found["bare"], strict=True)]
            print(
                f"{name:22} {statistics.median(rates):8.2f} windows/s, {statistics.median(shares):.2f} of bare"
            )


if __name__ == "__main__":
    main()
