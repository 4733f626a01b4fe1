"""Opening a video file with PyAV, and the times of its packets: what frames there are, before any is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import Int64
from numpy import ndarray

from vjepa.data.decoders.base import DecodeError
from vjepa.data.h264 import StreamHeader, begins_anew, read_header

# a file that holds less than this share of what its header promises was cut off
TRUNCATED_SHARE = 0.9
# Headers are parsed and nothing is decoded: ffmpeg decodes up to 20 frames to learn what the decoder finds out anyway.
UNDECODED = {"skip_frame": "all", "analyzeduration": "1"}
# containers that say everything else, seek to any keyframe, and give each packet its time
INDEXED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
HEADED_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d")


class PacketIndex(NamedTuple):
    """Times of a stream's packets in its time base.

    `pts` (N,) of all frames and `keyframes` (K,), where decoding may begin, ascending; `earliest` of any packet;
    `reorder`: how many frames are decoded before one that is shown earlier; `exact`: each packet has its own time,
    and its frame has the same.
    """

    pts: Int64[ndarray, "n"]
    keyframes: Int64[ndarray, "k"]
    earliest: int
    reorder: int
    exact: bool


class OpenVideo(NamedTuple):
    """An open file, its best video stream, and the header of an H.264 stream where that is plain."""

    container: InputContainer
    stream: VideoStream
    header: StreamHeader | None


def open_video_file(path: str) -> OpenVideo:
    """Open `path` without decoding a frame where its container allows that; raises `DecodeError`."""
    video = _open(path, UNDECODED)
    if _says_all(video):
        return video
    video.container.close()
    return _open(path, {})


def _open(path: str, options: dict[str, str]) -> OpenVideo:
    container = _open_container(path, options)
    try:
        stream = _best_stream(path, container)
    except BaseException:
        container.close()
        raise
    context = stream.codec_context
    return OpenVideo(
        container, stream, read_header(context.extradata or b"") if context.name == "h264" else None
    )


def _says_all(video: OpenVideo) -> bool:
    """Whether nothing is missing that decoding a few frames would have told."""
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
        container = av.open(path, options=options, metadata_errors="replace")  # titles may be of any alphabet
    except av.error.FFmpegError as e:
        raise DecodeError(path, f"no video file, or its index is cut off ({e.strerror})") from e
    except OSError as e:
        raise DecodeError(path, f"cannot be opened ({e.strerror})") from e
    if container.format.name == "tty":  # ffmpeg draws any text file as a video of a terminal
        container.close()
        raise DecodeError(path, "a text file, no video")
    return container


def _best_stream(path: str, container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if stream is None:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise DecodeError(path, f"holds no video, only {kinds}")
    assert isinstance(stream, VideoStream)
    if stream.codec_context is None:
        raise DecodeError(path, "its codec is not known; the header may be broken")
    # never AUTO: its frame threads hang on corrupt files; and a worker has one core
    stream.codec_context.thread_type = "SLICE"
    stream.codec_context.thread_count = 1
    return stream


def index_packets(path: str, video: OpenVideo) -> PacketIndex:
    """Read all packets of the stream, in decoding order; raises `DecodeError` where they are not all there."""
    pts: list[int] = []
    keyframes: list[int] = []
    beginnings: list[int] = []
    earliest: list[int] = []
    num_packets, timed = 0, True
    try:
        for packet in video.container.demux(video.stream):
            shown, decoded, size = packet.pts, packet.dts, packet.size
            if decoded is None and shown is None and size == 0:
                continue  # the flush packet at the end
            num_packets += 1
            if size == 0 or packet.is_discard:  # a repeat in AVI; outside the edit list of a MOV
                continue
            when = decoded if shown is None else shown
            if when is None:
                raise DecodeError(
                    path, "its packets carry no times. Remux it to mp4 or mkv, for example with ffmpeg"
                )
            timed = timed and shown is not None
            pts.append(when)
            if decoded is not None and len(pts) == 1:
                earliest.append(decoded)
            if packet.is_keyframe:
                keyframes.append(when)
                if video.header is not None and begins_anew(bytes(packet), video.header.length_bytes):
                    beginnings.append(when)
    except av.error.FFmpegError as e:
        raise DecodeError(path, f"cut off or broken after {len(pts)} frames ({e.strerror})") from e
    if not pts or not keyframes:
        raise DecodeError(path, f"{len(pts)} frames and {len(keyframes)} keyframes: nothing can be decoded")
    in_order = np.array(pts, np.int64)
    order = np.argsort(in_order, kind="stable")
    shown_at = in_order[order]
    _check_complete(path, video, num_packets, int(shown_at[-1] - shown_at[0]))
    # the frame that waits longest for its turn waits for all that were decoded before it and are shown after it
    reorder = int((order - np.arange(len(order))).max())
    exact = (
        timed
        and video.container.format.name in INDEXED_FORMATS
        and bool((shown_at[1:] > shown_at[:-1]).all())
    )
    return PacketIndex(
        shown_at,
        np.sort(np.array(beginnings or keyframes, np.int64)),
        min(*earliest, pts[0], int(shown_at[0])),
        reorder,
        exact,
    )


def _check_complete(path: str, video: OpenVideo, num_packets: int, span_pts: int) -> None:
    """Raise `DecodeError` where the header promises much more than the file holds."""
    container, stream = video.container, video.stream
    if stream.frames and num_packets < TRUNCATED_SHARE * stream.frames:
        raise DecodeError(path, f"truncated: {num_packets} of {stream.frames} promised frames are there")
    rate, base = stream.average_rate, stream.time_base
    if stream.frames or not rate or not base or container.duration is None or len(container.streams) > 1:
        return
    seconds, promised = float(span_pts * base + 1 / rate), container.duration / av.time_base
    if seconds < TRUNCATED_SHARE * promised and num_packets < TRUNCATED_SHARE * promised * rate:
        raise DecodeError(path, f"truncated: {seconds:.2f} of {promised:.2f} promised seconds are there")
