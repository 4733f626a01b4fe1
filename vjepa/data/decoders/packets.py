"""Opening a video file with PyAV, and the times of its packets: what frames there are, before any is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import Float64, Int64
from numpy import ndarray

from vjepa.data.decoders.base import check_same_rounding, check_unicode
from vjepa.data.decoders.h264 import StreamHeader, begins_anew, read_header
from vjepa.errors import DecodeError

MAX_REORDER = 16  # of H.264 (A.3.1); ffmpeg aborts the process beyond it
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


class VideoFacts(NamedTuple):
    """What PyAV reads of a file without decoding it: frame times in seconds, bits per channel, codec, container."""

    timestamps: Float64[ndarray, "n"]
    bits: int
    codec: str
    container: str


def facts_for(backend: str, path: str) -> VideoFacts:
    """Read a file's packets for a backend whose frames must be those of PyAV.

    Args:
        backend: Name of the backend.
        path: The video file.

    Raises:
        DecodeError: If the file is not readable, or the backend would give other pixels.
    """
    check_unicode(path, backend)
    video = open_video_file(path)
    with video.container:
        facts = VideoFacts(
            seconds_of(index_packets(path, video), video),
            bits_of(video),
            video.stream.codec_context.name,
            video.container.format.name,
        )
    check_same_rounding(path, backend, bits=facts.bits, codec=facts.codec)
    return facts


def check_count(backend: str, path: str, *, found: int, facts: VideoFacts) -> None:
    """Raise `DecodeError` if a backend finds another number of frames than the packets have."""
    if found != len(facts.timestamps):
        raise DecodeError(path, f"{backend} finds {found} of its {len(facts.timestamps)} frames; use 'pyav'")


def seconds_of(index: PacketIndex, video: OpenVideo) -> Float64[ndarray, "n"]:
    """Return the time in seconds at which each frame is first shown."""
    base = video.stream.time_base
    assert base is not None
    return index.pts.astype(np.float64) * base.numerator / base.denominator


def bits_of(video: OpenVideo) -> int:
    """Return the bits per colour channel in the file; decoded frames have 8."""
    if video.header is not None:
        return video.header.depth
    pixels = video.stream.codec_context.format
    return max((part.bits for part in pixels.components), default=8) if pixels is not None else 8


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


def index_packets(path: str, video: OpenVideo, *, is_cut_off: bool = False) -> PacketIndex:
    """Read all packets of the stream, in decoding order; raises `DecodeError` where they are not all there.

    Args:
        path: Of the video.
        video: The video.
        is_cut_off: The file is known to lack its end: take what is before it. The last packet may be half a one, so
            only frames that are shown before its turn to be decoded count; no frame before them is missing.
    """
    pts: list[int] = []
    keyframes: list[int] = []
    beginnings: list[int] = []
    earliest: list[int] = []
    num_packets, timed, last_turn = 0, True, None
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
            last_turn = decoded
            if decoded is not None and len(pts) == 1:
                earliest.append(decoded)
            if packet.is_keyframe:
                keyframes.append(when)
                if video.header is not None and begins_anew(bytes(packet), video.header.length_bytes):
                    beginnings.append(when)
    except av.error.FFmpegError as e:
        if not is_cut_off:
            raise DecodeError(path, f"cut off or broken after {len(pts)} frames ({e.strerror})") from e
    if is_cut_off:
        pts = _before_the_cut(pts, last_turn)
        keyframes, beginnings = ([k for k in found if k in set(pts)] for found in (keyframes, beginnings))
    if not pts or not keyframes:
        raise DecodeError(path, f"{len(pts)} frames and {len(keyframes)} keyframes: nothing can be decoded")
    in_order = np.array(pts, np.int64)
    order = np.argsort(in_order, kind="stable")
    shown_at = in_order[order]
    if not is_cut_off:
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


def _before_the_cut(pts: list[int], last_turn: int | None) -> list[int]:
    """Frames before the end of a file that is cut off, in decoding order.

    Args:
        pts: When each frame is shown.
        last_turn: When the last packet is decoded; no frame that is missing is shown before that. None where the
            container does not say: then as many frames are left out as H.264 may hold back.
    """
    stop = last_turn if last_turn is not None else sorted(pts)[-MAX_REORDER:][0] if pts else 0
    return [when for when in pts[:-1] if when < stop]


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
