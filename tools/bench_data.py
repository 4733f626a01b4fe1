"""Reading clips: ours against decord, PyAV and torchcodec used the plain way, and against the published loader.

python tools/bench_data.py [--pairs 30] [--folder CLIPS]      (in a quiet hour, pinned: taskset -c 0)

16 frames, every 4th, from a random start, one thread. First decoding alone (open, decode, close), all frames
compared bit for bit; then the whole way to a batch: decode, random resized crop to 224, flip. "published" is decord
and the crop in floats with normalisation, as the released V-JEPA code does it; "torchcodec + crop" decodes
with torchcodec and crops in floats. All of them take turns; a line gives median milliseconds and the median of the
ratios to ours. The clips are generated: like Kinetics (340x256, 30 fps, 10 s, H.264, a keyframe every 250), like
Something-Something (427x240, 12 fps, VP9), and HD; or those in --folder.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F

from vjepa.commands.data_index import index_command
from vjepa.data import TrainTransform, VideoClips, collate, decoder_class, read_manifest
from vjepa.data.transforms.video import IMAGENET_MEAN, IMAGENET_STD, random_resized_crop_box

FRAMES, STEP, SIZE = 16, 4, 224
KINDS = {
    "kinetics": ("libx264", "mp4", 340, 256, 30, 10, {"g": "250", "crf": "28"}),
    "ssv2": ("libvpx-vp9", "webm", 428, 240, 12, 6, {"g": "128", "deadline": "realtime", "cpu-used": "8"}),
    "hd": ("libx264", "mp4", 1280, 720, 30, 6, {"g": "250", "crf": "28"}),
}
Read = Callable[[str, list[int]], torch.Tensor]


def generate(
    path: Path, codec: str, width: int, height: int, fps: int, seconds: int, options: dict[str, str]
) -> None:
    """A picture that drifts under grain, with one bright block that crosses it."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (height // 8 + 40, width // 8 + 80, 3), dtype=np.uint8)
    ground = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    grain = rng.integers(0, 24, (16, height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t in range(fps * seconds):
            x, y = int(120 + 100 * np.sin(t / 25)), int(100 + 90 * np.cos(t / 31))
            frame = np.minimum(ground[y : y + height, x : x + width] // 2 + 60 + grain[t % 16], 255).astype(
                np.uint8
            )
            left = int(width / 2 + width / 3 * np.sin(t / 9))
            frame[height // 3 : height // 3 + 40, max(left - 20, 0) : left + 20] = (250, 40, t % 255)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def ours(path: str, indices: list[int]) -> torch.Tensor:
    """By our decoder."""
    with decoder_class("pyav").open(path) as video:
        return video.frames_at(indices)


def by_decord(path: str, indices: list[int]) -> torch.Tensor:
    """As the published loader reads."""
    import decord

    reader = decord.VideoReader(path, num_threads=1, ctx=decord.cpu(0))
    return torch.from_numpy(reader.get_batch(indices).asnumpy()).permute(0, 3, 1, 2)


def by_pyav(path: str, indices: list[int]) -> torch.Tensor:
    """Seek to the start and decode until the last frame."""
    wanted, found = set(indices), []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate = float(stream.average_rate or 1)
        container.seek(int(indices[0] / rate / stream.time_base), stream=stream)  # type: ignore[operator]
        for frame in container.decode(stream):
            if round(frame.time * rate) in wanted:
                found.append(frame.to_ndarray(format="rgb24"))
                if len(found) == len(indices):
                    break
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def by_torchcodec(path: str, indices: list[int]) -> torch.Tensor:
    """With the seek mode that scans the file, as it comes."""
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(path, num_ffmpeg_threads=1).get_frames_at(indices).data


def in_floats(frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Crop, flip and normalise as the released V-JEPA code: channels first, floats, in place after resizing."""
    clip = frames.float().permute(1, 0, 2, 3)
    box = random_resized_crop_box(frames.shape[2], frames.shape[3], (0.3, 1.0), (0.75, 1.35), rng)
    cut = clip[:, :, box.top : box.top + box.height, box.left : box.left + box.width]
    resized = F.interpolate(cut, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    if rng.random() < 0.5:
        resized = resized.flip(-1)
    mean, std = (255 * torch.tensor(x)[:, None, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    return resized.sub_(mean).div_(std)


def seconds(run: Callable[[], object]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def available() -> dict[str, Read]:
    """The peers that are installed here."""
    peers: dict[str, Read] = {"ours": ours}
    for name, read in (("decord", by_decord), ("PyAV", by_pyav), ("torchcodec", by_torchcodec)):
        try:
            __import__({"PyAV": "av"}.get(name, name))
        except (ImportError, RuntimeError, OSError) as error:
            print(f"without {name}: {str(error).splitlines()[0]}")
        else:
            peers[name] = read
    return peers


def report(title: str, times: dict[str, list[float]]) -> None:
    """A line for each: median milliseconds, clips a second, and the median of the ratios to ours."""
    print(f"\n{title}\n{'':24} ms a clip   clips/s   over ours")
    for name, taken in times.items():
        ratio = statistics.median(b / a for a, b in zip(times["ours"], taken, strict=True))
        median = statistics.median(taken)
        print(f"{name:24} {1e3 * median:9.1f} {1 / median:9.1f} {ratio:9.2f}", flush=True)


class Chosen:
    """A sampler that takes the frames it was told, so that all read the same ones."""

    indices: list[int]

    def sample(self, *_: object) -> np.ndarray:
        """The frames, whatever the video."""
        return np.array(self.indices)


def to_batch(clips: VideoClips, row: int) -> object:
    """Our whole way."""
    return collate([clips[row]])


def in_floats_to_batch(read: Read, path: str, indices: list[int], rng: np.random.Generator) -> object:
    """The published way, whoever decodes."""
    return torch.stack([in_floats(read(path, indices), rng)])


def measure(kind: str, paths: list[str], pairs: int, folder: Path) -> None:
    """Both tables for clips of one kind."""
    rng, sampler, peers = np.random.default_rng(0), Chosen(), available()
    manifest = folder / f"{kind}.csv"
    manifest.write_text("path\n" + "".join(f"{path}\n" for path in paths))
    index = str(folder / f"{kind}.index")
    index_command(source=str(manifest), out=Path(index), num_processes=0)
    variants = {
        title: VideoClips(
            read_manifest(manifest),
            sampler=sampler,
            transform=TrainTransform(size=SIZE),
            decoder="pyav",
            as_pixels=True,
            timeout_seconds=limit,
            index=with_index,
        )
        for title, limit, with_index in (
            ("ours", 60, None),
            ("ours, indexed", 60, index),
            ("ours, no time limit", 0, None),
            ("ours, both", 0, index),
        )
    }
    decoding: dict[str, list[float]] = {name: [] for name in peers}
    whole: dict[str, list[float]] = {title: [] for title in variants}
    floats = {"published (decord)": "decord", "torchcodec + published": "torchcodec"}
    whole |= {title: [] for title, name in floats.items() if name in peers}
    for turn in range(-2, pairs):  # the first are warm-up
        row = turn % len(paths)
        path = paths[row]
        with decoder_class("pyav").open(path) as video:
            num_frames = video.num_frames
        start = int(rng.integers(0, max(num_frames - FRAMES * STEP, 1)))
        sampler.indices = [min(start + STEP * i, num_frames - 1) for i in range(FRAMES)]
        expected = ours(path, sampler.indices)
        for clips in variants.values():
            clips.seed = turn + 2  # another crop each time
        for name, read in peers.items():
            # the plain way of PyAV guesses frame numbers from the rate
            assert name == "PyAV" or torch.equal(read(path, sampler.indices), expected), (name, path)
            taken = seconds(partial(read, path, sampler.indices))
            decoding[name] += [taken] if turn >= 0 else []
        for title, took in whole.items():
            if title in variants:
                run = partial(to_batch, variants[title], row)
            else:
                run = partial(in_floats_to_batch, peers[floats[title]], path, sampler.indices, rng)
            taken = seconds(run)
            took += [taken] if turn >= 0 else []
    report(f"{kind}: decoding alone", decoding)
    report(f"{kind}: whole, to the batch", whole)


def main() -> None:
    """Generate the clips and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="measure the clips in it instead")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.folder:
            paths = sorted(str(p.resolve()) for p in given.folder.rglob("*.mp4"))
            measure(given.folder.name, paths, given.pairs, folder)
        else:
            for kind, (codec, suffix, *shape, options) in KINDS.items():
                path = folder / f"{kind}.{suffix}"
                generate(path, codec, *shape, options)  # type: ignore[arg-type]
                measure(kind, [str(path)], given.pairs, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process, all libraries loaded: {peak:.0f} MB")


if __name__ == "__main__":
    main()
