"""Milliseconds a clip of reading videos, one thread: ours against decord, PyAV and torchcodec used the plain way.

    python tools/bench_data.py --sets kinetics ssv2 hd --trials 40
    python tools/bench_data.py --folder data/episodes --sets

The clips are generated: Kinetics-like (h264 340x256, 30 fps, 10 s, a keyframe every 250 frames, B-frames), SSv2-like
(webm VP9 427x240, 12 fps, 4 s) and HD (h264 720p, 30 fps). Each trial draws a file and a start; every reader then
reads the same frames in turn, so that a busy machine is busy for all of them. "decode" is open and decode; "whole"
adds the training transform and the batch. Decoded frames are compared to the bit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from torch.nn import functional as F

from vjepa.data import ClipSampler, SampleKey, TrainTransform, VideoClips, collate, read_manifest
from vjepa.data.decoders.pyav import PyAVDecoder
from vjepa.data.transforms import IMAGENET_MEAN, IMAGENET_STD, random_resized_crop_box

SETS = {
    "kinetics": dict(width=340, height=256, fps=30, frames=300, codec="libx264", gop=250, ending="mp4"),
    "ssv2": dict(width=427, height=240, fps=12, frames=48, codec="libvpx-vp9", gop=128, ending="webm"),
    "hd": dict(width=1280, height=720, fps=30, frames=150, codec="libx264", gop=250, ending="mp4"),
}
STEPS = {"kinetics": 4, "ssv2": 2, "hd": 4}  # 16 frames every so many


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) float of 0 to 255: noise with the spectrum of a photograph."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = 1 / np.maximum(frequency, 1 / min(height, width)) ** 1.3
    planes = [
        np.fft.irfft2(amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape)), s=(height, width))
        for _ in range(3)
    ]
    image = np.stack(planes, -1)
    return (128 + 45 * (image - image.mean()) / image.std()).clip(0, 255)


def write_clip(
    path: Path, *, width: int, height: int, fps: int, frames: int, codec: str, gop: int, seed: int
):
    """A camera that sways over a textured plane, an object that circles before it, and sensor noise."""
    rng = np.random.default_rng(seed)
    ground, thing = texture(2 * height, 2 * width, seed), texture(height // 2, width // 3, seed + 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", gop
        if codec == "libvpx-vp9":
            stream.options = {"deadline": "good", "cpu-used": "5", "crf": "35", "b": "0"}
        for t in range(frames):
            top = int(height / 2 + height / 3 * np.sin(t / 60 + seed))
            left = int(width / 2 + width / 3 * np.sin(t / 85))
            picture = ground[top : top + height, left : left + width].copy()
            y, x = int(height / 4 * (1 + np.sin(t / 11))), int(width / 3 * (1 + np.cos(t / 17)))
            picture[y : y + height // 2, x : x + width // 3] = thing
            picture += rng.normal(0, 2, (height, width, 1))
            pixels = picture.clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def decode_ours(path: str, indices: list[int]) -> torch.Tensor:
    """Our decoder in this process, without its time limit."""
    with PyAVDecoder.open(path) as video:
        return video.frames_at(indices)


def decode_pyav(path: str, indices: list[int]) -> torch.Tensor:
    """Seek by time, decode through to the last frame."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        first = (stream.start_time or 0) * stream.time_base
        times = [first + i / stream.average_rate for i in indices]
        container.seek(int(times[0] / stream.time_base), stream=stream)
        wanted, found = list(times), []
        for frame in container.decode(stream):
            if frame.pts * stream.time_base >= wanted[0] - 1 / (2 * stream.average_rate):
                found.append(frame.to_ndarray(format="rgb24"))
                wanted.pop(0)
                if not wanted:
                    break
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def decode_decord(path: str, indices: list[int]) -> torch.Tensor:
    """As the published loader does."""
    import decord

    frames = decord.VideoReader(path, num_threads=1, ctx=decord.cpu(0)).get_batch(indices).asnumpy()
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def decode_torchcodec(path: str, indices: list[int]) -> torch.Tensor:
    """As its documentation begins."""
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(path, num_ffmpeg_threads=1).get_frames_at(indices).data


def published_transform(frames: torch.Tensor, rng: np.random.Generator, size: int = 224) -> torch.Tensor:
    """The published code's transform (spec 4.6): all of the frames in float, then crop, flip, normalisation."""
    video = frames.permute(1, 0, 2, 3).to(torch.float32)
    top, left, height, width = random_resized_crop_box(*frames.shape[-2:], (0.3, 1.0), (0.75, 1.35), rng)
    video = F.interpolate(
        video[:, :, top : top + height, left : left + width],
        size=(size, size),
        mode="bilinear",
        align_corners=False,
    )
    if rng.random() < 0.5:
        video = video.flip(-1)
    mean, std = (255 * torch.tensor(x)[:, None, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (video - mean) / std


DECODERS = {
    "ours": decode_ours,
    "pyav": decode_pyav,
    "decord": decode_decord,
    "torchcodec": decode_torchcodec,
}


class Bench:
    """The files of one set and the readers to compare on it."""

    def __init__(self, name: str, folder: Path, step: int) -> None:
        self.name, self.step = name, step
        self.manifest = read_manifest(folder)
        with PyAVDecoder.open(self.manifest.rows[0].path) as video:
            self.sampler = ClipSampler(num_frames=16, fps=video.fps / step)
        self.transform = TrainTransform()
        self.clips = VideoClips(
            self.manifest, sampler=self.sampler, transform=self.transform, decoder="pyav", **unlimited()
        )

    def drawn(self, key: SampleKey) -> tuple[str, list[int], np.random.Generator]:
        """What our loader reads for `key`: the file, the frames, and the generator as the transform gets it."""
        row = self.manifest.rows[key.index]
        generator = np.random.default_rng([0, key.epoch, int(self.clips.identities[key.index])])
        with PyAVDecoder.open(row.path) as video:
            chosen = self.sampler.sample(video.timestamps, generator, row.start, row.end)
        return row.path, chosen.tolist(), generator

    def whole(self, name: str, key: SampleKey) -> Callable[[], torch.Tensor]:
        """From the file to a batch of one."""
        if name == "ours":
            return lambda: collate([self.clips[key]]).video
        path, indices, generator = self.drawn(key)
        if name == "official":  # decord and the published transform
            return lambda: published_transform(decode_decord(path, indices), generator)[None]
        if name.endswith("+ published"):
            decode = DECODERS[name.split(" ")[0]]
            return lambda: published_transform(decode(path, indices), generator)[None]
        return lambda: self.transform(DECODERS[name.split(" ")[0]](path, indices), generator)[None]

    def run(self, trials: int) -> None:
        """Time every reader on the same clips, one after the other; print medians and ratios."""
        rng = np.random.default_rng(0)
        keys = [SampleKey(t, int(rng.integers(len(self.manifest)))) for t in range(trials + 1)]
        decode: dict[str, list[float]] = {name: [] for name in DECODERS}
        whole: dict[str, list[float]] = {
            name: [] for name in ("ours", "official", "torchcodec + our crop", "torchcodec + published")
        }
        different = dict.fromkeys(DECODERS, 0)
        for key in keys:
            path, indices, _ = self.drawn(key)
            frames = {name: timed(lambda: f(path, indices), decode[name]) for name, f in DECODERS.items()}  # noqa: B023
            for name in DECODERS:
                different[name] += not torch.equal(frames[name], frames["ours"])
            for name in whole:
                timed(self.whole(name, key), whole[name])
        print(f"\n{self.name}: 16 frames every {self.step}, {len(self.manifest)} files, {trials} trials")
        report("decode", decode, {name: f"{n} of {len(keys)} clips differ" for name, n in different.items()})
        report("whole", whole, {name: f"{peak_memory(self, name, keys[:8]):.0f} MB peak" for name in whole})


def unlimited() -> dict[str, float]:
    """No time limit on reading, where there is one: a child process is another thing to measure."""
    import inspect

    return {"timeout_seconds": 0.0} if "timeout_seconds" in inspect.signature(VideoClips).parameters else {}


def timed(call: Callable[[], torch.Tensor], times: list[float]) -> torch.Tensor:
    """What `call` gives; its milliseconds are added to `times`."""
    began = time.perf_counter()
    out = call()
    times.append(1000 * (time.perf_counter() - began))
    return out


def report(title: str, times: dict[str, list[float]], notes: dict[str, str]) -> None:
    """Medians, means and ours over each; the first trial warms up."""
    ours = times["ours"][1:]
    for name, taken in times.items():
        rest = taken[1:]
        ratio = statistics.median(a / b for a, b in zip(ours, rest, strict=True))
        print(
            f"  {title:6} {name:23} median {statistics.median(rest):7.2f} ms, mean {statistics.mean(rest):7.2f}, "
            f"{1000 / statistics.mean(rest):6.1f} clips/s; ours / it {ratio:.2f} (pairs' median), "
            f"{sum(ours) / sum(rest):.2f} (sums); {notes[name]}"
        )


def peak_memory(bench: Bench, name: str, keys: list[SampleKey]) -> float:
    """MB that a fresh process grows by while it reads the clips."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_growth, (bench, name, keys))


def _growth(bench: Bench, name: str, keys: list[SampleKey]) -> float:
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for key in keys:
        bench.whole(name, key)()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000


def main() -> None:
    """Generate, read, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--folder", help="videos of your own, read as 16 frames every 4th")
    parser.add_argument("--files", type=int, default=3, help="generated files of a set")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="folder for the generated clips; used again if it has them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = args.keep or Path(scratch)
        for name in args.sets:
            options = dict(SETS[name])
            ending = options.pop("ending")
            (root / name).mkdir(parents=True, exist_ok=True)
            for seed in range(args.files):
                path = root / name / f"{seed}.{ending}"
                if not path.exists():
                    write_clip(path, seed=seed, **options)
            Bench(name, root / name, STEPS[name]).run(args.trials)
        if args.folder:
            Bench(args.folder, Path(args.folder), 4).run(args.trials)


if __name__ == "__main__":
    main()
