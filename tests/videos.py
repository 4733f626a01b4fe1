"""Small real video files for tests, encoded on the spot."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def moving_frames(num_frames: int = 16, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8: a bright square that crosses a smooth background; each seed another one."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    phase = rng.uniform(0, 6, 3)
    background = 110 + 60 * np.sin(rows[..., None] / 9 + columns[..., None] / 13 + phase)
    frames = np.repeat(background[None], num_frames, axis=0)
    side, speed = max(height // 4, 2), rng.integers(1, 4)
    top, left = rng.integers(0, height - side), rng.integers(0, width - side)
    for t in range(num_frames):
        x = (left + speed * t) % (width - side)
        frames[t, top : top + side, x : x + side] = (240, 20 + 12 * (t % 16), 40)
    return frames.astype(np.uint8)


def write_video(
    path: str | Path,
    *,
    num_frames: int = 16,
    height: int = 64,
    width: int = 64,
    fps: float = 8.0,
    seed: int = 0,
    codec: str = "libx264",
    gop: int = 12,
    seconds: list[float] | None = None,
    pixels: str = "",
    options: dict[str, str] | None = None,
) -> Path:
    """Encode `moving_frames` to `path` and return it.

    `seconds`: each frame's time (variable frame rate); `pixels`: pixel format, if not the codec's usual one;
    `options`: of the encoder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if (
        codec == "libx264"
    ):  # its lookahead reads memory that nobody wrote: the file would not be the same every time
        options = {"x264-params": "rc-lookahead=0:sync-lookahead=0:mbtree=0"} | (options or {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.width, stream.height, stream.gop_size = width, height, gop
        stream.pix_fmt = pixels or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
        # AVI and MPEG count frames: with finer units each unit without a frame would be a missing one
        base = (
            1 / stream.codec_context.framerate
            if path.suffix in (".avi", ".mpg", ".ts")
            else Fraction(1, 12000)
        )
        stream.codec_context.time_base = base
        stream.codec_context.thread_count = 1
        for t, rgb in enumerate(moving_frames(num_frames, height, width, seed)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.time_base = base
            frame.pts = round((seconds[t] if seconds else t / fps) / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_videos(folder: str | Path, num_videos: int, **options) -> list[Path]:
    """`num_videos` different videos, clip_000.mp4 and on; options as for `write_video`."""
    return [write_video(Path(folder) / f"clip_{i:03d}.mp4", seed=i, **options) for i in range(num_videos)]


def write_manifest(folder: str | Path, num_videos: int = 12, *, name: str = "train.csv", **options) -> Path:
    """Videos in `folder`, and a CSV manifest beside them with the labels left and right; returns it."""
    folder = Path(folder)
    stem = Path(name).stem
    videos = write_videos(folder / stem, num_videos, **options)
    lines = [f"{v.relative_to(folder).as_posix()},{('left', 'right')[i % 2]}" for i, v in enumerate(videos)]
    manifest = folder / name
    manifest.write_text("\n".join(["path,label", *lines]) + "\n")
    return manifest


def write_broken(folder: str | Path) -> list[Path]:
    """An empty file, a text file and a truncated video, all called .mp4."""
    folder = Path(folder)
    whole = write_video(folder / "broken_truncated.mp4", num_frames=30)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    empty, text = folder / "broken_empty.mp4", folder / "broken_text.mp4"
    empty.write_bytes(b"")
    text.write_text("this is no video\n")
    return [empty, text, whole]
