"""Opening of a video file with PyAV, and the facts in its headers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from vjepa.data.decoders.base import MAX_PIXELS, check_size
from vjepa.data.decoders.h264 import StreamHeader, read_header
from vjepa.errors import DecodeError

# only parse headers: by default ffmpeg decodes up to 20 frames for facts that the decoder finds later anyway
UNDECODED = {"skip_frame": "all", "analyzeduration": "1"}
# containers with all other facts, with seeks to any keyframe, and with a time for each packet
INDEXED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
HEADED_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d")


class OpenStream(NamedTuple):
    """An open file, its best video stream, and the header of an H.264 stream if that is simple."""

    container: InputContainer
    stream: VideoStream
    header: StreamHeader | None


def bits_of(video: OpenStream) -> int:
    """Return the bits per colour channel in the file; decoded frames have 8."""
    if video.header is not None:
        return video.header.depth
    pixels = video.stream.codec_context.format
    return max((part.bits for part in pixels.components), default=8) if pixels is not None else 8


def open_video_file(path: str, *, probe: bool = False) -> OpenStream:
    """Open `path`; raise `DecodeError` if it is broken.

    Args:
        path: The video file.
        probe: Whether to decode some frames for facts of the stream, also if the container has them all.
    """
    video = _open(path, {} if probe else UNDECODED)
    if probe or _is_complete(video):
        return video
    video.container.close()
    return _open(path, {})


def broken(path: str, found: str, error: av.error.FFmpegError) -> DecodeError:
    """Return the error of a file whose decoding stopped after it `found` some frames."""
    if isinstance(error, av.error.ArgumentError):  # libav's answer to frames over its limit of pixels
        return DecodeError(path, f"broken data, or frames of more than {MAX_PIXELS:,} pixels: {found}")
    return DecodeError(path, f"broken data: {found} ({error.strerror})")


def _open(path: str, options: dict[str, str]) -> OpenStream:
    container = _open_container(path, options)
    try:
        stream = _best_stream(path, container)
        check_size(path, stream.codec_context.width, stream.codec_context.height)
    except BaseException:
        container.close()
        raise
    context = stream.codec_context
    header = read_header(context.extradata or b"") if context.name == "h264" else None
    return OpenStream(container, stream, header)


def _is_complete(video: OpenStream) -> bool:
    """Return whether the header has all facts that decoding a few frames would give."""
    stream = video.stream
    name = stream.codec_context.name
    return (
        video.container.format.name in INDEXED_FORMATS
        and len(video.container.streams.video) == 1
        and name in HEADED_CODECS
        and (name != "h264" or video.header is not None)
        and bool(stream.frames or stream.average_rate)
    )


def _open_container(path: str, options: dict[str, str]) -> InputContainer:
    try:
        if Path(path).stat().st_size == 0:
            raise DecodeError(path, "the file is empty (0 bytes)")
        options = {"max_pixels": str(MAX_PIXELS)} | options
        # absolute: a name such as 10:30.mp4 would be an address; titles may have any encoding
        container = av.open(os.path.abspath(path), options=options, metadata_errors="replace")
    except av.error.FFmpegError as e:
        if _is_segment(path):
            raise DecodeError(path, "a media segment without its init segment; join the two") from e
        raise DecodeError(path, f"no video file, or its index is cut off ({e.strerror})") from e
    except OSError as e:
        raise DecodeError(path, f"cannot be opened ({e.strerror})") from e
    if container.format.name == "tty":  # ffmpeg draws any text file as a video of a terminal
        container.close()
        raise DecodeError(path, "a text file, no video")
    return container


def _is_segment(path: str) -> bool:
    """Return whether a file has fragments of an mp4 but no header."""
    with open(path, "rb") as file:
        return file.read(8)[4:] in (b"styp", b"moof", b"sidx")


def _best_stream(path: str, container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if stream is None:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise DecodeError(path, f"holds no video, only {kinds}")
    assert isinstance(stream, VideoStream)
    if stream.codec_context is not None and stream.codec_context.codec_tag in ("encv", "drmi"):
        raise DecodeError(path, "encrypted; decrypt it first")
    if stream.codec_context is None:
        raise DecodeError(path, "its codec is not known; the header may be broken")
    # never AUTO: its frame threads hang on corrupt files, and a worker has one core
    stream.codec_context.thread_type = "SLICE"
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # a GIF's size is known once it is decoded
    return stream
