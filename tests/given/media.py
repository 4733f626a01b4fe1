"""Odd video files that ordinary tools write: codecs, containers, cuts, joins, missing times. All made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

NUM_FRAMES, HEIGHT, WIDTH, FPS, GOP = 50, 96, 128, 25, 12
CODECS = {  # name of the codec -> encoder, its options, its containers
    "h264": ("libx264", {"bf": "2"}, ("mp4", "mov", "mkv", "ts", "avi", "flv", "mpg", "nut", "3gp", "h264", "m4v")),
    "h264_open": ("libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=12"}, ("mp4", "mkv", "ts", "h264")),
    "h264_refresh": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}, ("mp4", "mkv", "ts")),
    "h264_444": ("libx264", {"bf": "2"}, ("mp4", "mkv")),
    "h264_fields": ("libx264", {"x264-params": "tff=1:bframes=2"}, ("mp4", "mkv", "ts")),
    "hevc": ("libx265", {"x265-params": "log-level=none:keyint=12"}, ("mp4", "mkv", "ts", "hevc")),
    "hevc_refresh": ("libx265", {"x265-params": "log-level=none:intra-refresh=1:keyint=12"}, ("mp4",)),
    "vp8": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}, ("webm", "mkv", "avi", "ivf")),
    "vp9": ("libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}, ("webm", "mp4", "ivf")),
    "vp9_10": ("libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}, ("webm", "mp4")),
    "av1": ("libsvtav1", {"preset": "10", "svtav1-params": "keyint=12"}, ("mp4", "mkv", "webm", "obu")),
    "mpeg4": ("mpeg4", {"bf": "2"}, ("avi", "mp4", "mkv")),
    "mpeg4_plain": ("mpeg4", {}, ("avi",)),
    "msmpeg4": ("msmpeg4", {}, ("avi", "asf")),
    "wmv2": ("wmv2", {}, ("asf",)),
    "mpeg2": ("mpeg2video", {"bf": "2"}, ("mpg", "ts", "mkv", "vob", "m2v")),
    "mpeg2_fields": ("mpeg2video", {"bf": "2", "flags": "+ilme+ildct"}, ("mpg", "mkv")),
    "mpeg1": ("mpeg1video", {"bf": "2"}, ("mpg", "m1v")),
    "mjpeg": ("mjpeg", {}, ("avi", "mov", "mjpeg", "mkv")),
    "prores": ("prores_ks", {}, ("mov",)),
    "ffv1": ("ffv1", {}, ("mkv", "avi")),
    "flv1": ("flv", {}, ("flv",)),
    "h263": ("h263", {}, ("3gp",)),
    "rawvideo": ("rawvideo", {}, ("avi", "nut")),
    "huffyuv": ("huffyuv", {}, ("avi",)),
    "gif": ("gif", {}, ("gif",)),
    "dv": ("dvvideo", {}, ("dv", "avi", "mov")),
}  # fmt: skip
PIXELS = {
    "h264_444": "yuv444p",
    "vp9_10": "yuv420p10le",
    "mjpeg": "yuvj420p",
    "prores": "yuv422p10le",
    "huffyuv": "yuv422p",
    "gif": "rgb8",
}
WITH_GAPS = ("h264", "h264_open", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2", "mjpeg")
SIZES = {"h263": (128, 96), "dv": (720, 576)}
FORMATS = {
    "mpg": "mpeg",
    "m4v": "mp4",
    "m2v": "mpeg2video",
    "m1v": "mpeg1video",
    "ts": "mpegts",
    "mkv": "matroska",
}


def pictures(
    num_frames: int = NUM_FRAMES, *, width: int = WIDTH, height: int = HEIGHT
) -> Iterator[np.ndarray]:
    """Yield RGB frames (H, W, 3): a moving pattern, bars that tell the number of the frame, and some noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width]
    for t in range(num_frames):
        wave = 120 + 60 * np.sin((rows + 2 * t) / 9.0) + 40 * np.cos((columns - 3 * t) / 11.0)
        frame = np.stack([wave, 255 - wave, np.full_like(wave, (t * 5) % 256)], -1)
        frame += rng.normal(0, 6, frame.shape)
        frame[:12, : (t % 32) * width // 32] = (255, 40, 40)
        yield frame.clip(0, 255).astype(np.uint8)


def encode(
    path: Path,
    name: str,
    *,
    num_frames: int = NUM_FRAMES,
    seconds: Callable[[int], float] | None = None,
    options: dict[str, str] | None = None,
    size: tuple[int, int] | None = None,
) -> Path:
    """Encode `pictures` with a codec of CODECS; `options` are the container's, `seconds(t)` the time of a frame."""
    encoder, settings, _ = CODECS[name]
    width, height = size or SIZES.get(name, (WIDTH, HEIGHT))
    fields = name in ("h264_fields", "mpeg2_fields")
    with av.open(str(path), "w", format=FORMATS.get(path.suffix[1:]), options=options or {}) as container:
        stream = container.add_stream(encoder, rate=FPS, options=settings)
        stream.width, stream.height, stream.pix_fmt = width, height, PIXELS.get(name, "yuv420p")
        stream.codec_context.thread_count = 1
        if not name.startswith(("prores", "ffv1", "dv", "huffyuv", "rawvideo")):
            stream.gop_size = GOP
        base = Fraction(1, FPS) if seconds is None else Fraction(1, 1000)
        stream.codec_context.time_base = base
        for t, rgb in enumerate(pictures(num_frames, width=width, height=height)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=stream.pix_fmt, threads=1)
            if fields:
                frame.interlaced_frame  # noqa: B018  the mark is the encoder's
            frame.time_base, frame.pts = base, t if seconds is None else round(seconds(t) * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remux(
    source: Path,
    target: Path,
    *,
    keep: Callable[[int, av.Packet], bool] = lambda i, packet: True,
    shift: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Copy packets for which `keep(number, packet)` is true, `shift` seconds later, without decoding."""
    options = {"avoid_negative_ts": "disabled"} | (options or {})
    with (
        av.open(str(source)) as given,
        av.open(str(target), "w", format=FORMATS.get(target.suffix[1:]), options=options) as made,
    ):
        stream = given.streams.video[0]
        out = made.add_stream_from_template(stream)
        ticks = round(shift / stream.time_base)
        for number, packet in enumerate(given.demux(stream)):
            if packet.size and keep(number, packet):
                packet.pts = packet.pts + ticks if packet.pts is not None else None
                packet.dts = packet.dts + ticks if packet.dts is not None else None
                packet.stream = out
                made.mux(packet)
    return target


def joined(target: Path, *parts: Path) -> Path:
    """Join files byte by byte."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def gaps(t: int) -> float:
    """Times of a variable rate: two gaps of 30 and 100 seconds."""
    return t / FPS + 30 * (t > 17) + 100 * (t > 30)


def write_media(folder: Path) -> dict[str, Path | str]:
    """Write all files that the encoders of this machine can write.

    Returns:
        The path of each file by name, or why it could not be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Path | str] = {}

    def make(name: str, write: Callable[[Path], object]) -> None:
        path = folder / name
        try:
            write(path)
            made[name] = path
        except (av.error.FFmpegError, ValueError, KeyError, TypeError, OSError, AttributeError) as e:
            path.unlink(missing_ok=True)
            made[name] = f"{type(e).__name__}: {e}"

    for codec, (_, _, containers) in CODECS.items():
        for suffix in containers:
            make(f"{codec}.{suffix}", lambda path, codec=codec: encode(path, codec))
    for codec, suffix in (
        ("h264", "ts"),
        *((codec, suffix) for codec in WITH_GAPS for suffix in ("mp4", "mkv", "webm")),
    ):
        make(f"{codec}_gaps.{suffix}", lambda path, codec=codec: encode(path, codec, seconds=gaps))
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    make("fragmented.mp4", lambda path: encode(path, "h264", options=fragments))
    make("fragmented_open.mp4", lambda path: encode(path, "h264_open", options=fragments))
    make("fragmented_refresh.mp4", lambda path: encode(path, "h264_refresh", options=fragments))
    make("one_frame.mp4", lambda path: encode(path, "h264", num_frames=1))
    _write_cuts(folder, make)
    _write_joins(folder, make)
    return made


def _write_cuts(folder: Path, make: Callable[[str, Callable[[Path], object]], None]) -> None:
    def late(source: str) -> Callable[[Path], object]:
        return lambda path: remux(folder / source, path, keep=lambda i, packet: i >= 17)

    def trimmed(source: str) -> Callable[[Path], object]:
        return lambda path: remux(
            folder / source, path, keep=lambda i, packet: i >= GOP, shift=-(GOP + 5.5) / FPS
        )

    def holes(source: str) -> Callable[[Path], object]:
        return lambda path: remux(folder / source, path, keep=lambda i, packet: i not in (5, 20, 21, 40))

    for source in ("h264.mp4", "hevc.mp4", "mpeg2.ts", "vp8.webm", "vp9.webm", "av1.mp4", "mpeg4.mp4"):
        for suffix in ("mp4", "mov", "mkv", "ts", "avi"):
            stem = source.split(".")[0]
            make(f"{stem}_late.{suffix}", late(source))
            make(f"{stem}_trimmed.{suffix}", trimmed(source))
            make(f"{stem}_holes.{suffix}", holes(source))


def _write_joins(folder: Path, make: Callable[[str, Callable[[Path], object]], None]) -> None:
    other = encode(folder / "other_size.part.ts", "h264", size=(64, 64))
    for codec in ("h264", "hevc", "mpeg2", "h264_open"):
        whole = folder / f"{codec}.ts"
        make(f"{codec}_restart.ts", lambda path, whole=whole: joined(path, whole, whole))
        late = folder / f"{codec}_late.ts"
        if late.exists():
            make(f"{codec}_restart_late.ts", lambda path, a=whole, b=late: joined(path, a, b, a))
        make(f"{codec}_sizes.ts", lambda path, whole=whole: joined(path, whole, other))
        far = folder / f"{codec}_far.part.ts"
        remux(whole, far, shift=100.0)
        make(f"{codec}_jump.ts", lambda path, a=whole, b=far: joined(path, a, b))
    make("mpeg2_restart.mpg", lambda path: joined(path, folder / "mpeg2.mpg", folder / "mpeg2.mpg"))
    make("h264_twice.h264", lambda path: joined(path, folder / "h264.h264", folder / "h264.h264"))
    make("mjpeg_twice.mjpeg", lambda path: joined(path, folder / "mjpeg.mjpeg", folder / "mjpeg.mjpeg"))
