"""Opening of a video file with PyAV, and the times of its packets, which give its frames without decoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import Float64, Int64
from numpy import ndarray

from vjepa.data.decoders.h264 import StreamHeader, decoding_may_begin, read_header
from vjepa.errors import DecodeError

MAX_REORDER = 16  # of H.264 (A.3.1); ffmpeg aborts the process beyond it
# a file with less than this share of what its header promises is truncated
TRUNCATED_SHARE = 0.9
# only parse headers: by default ffmpeg decodes up to 20 frames for facts that the decoder finds later anyway
UNDECODED = {"skip_frame": "all", "analyzeduration": "1"}
# containers with all other facts, with seeks to any keyframe, and with a time for each packet
INDEXED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
HEADED_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d")
# MPEG-4 part 2 (XviD, DivX) and related codecs do not define their inverse cosine transform to the bit
INEXACT_CODECS = ("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "flv1", "wmv1", "wmv2")


class PacketIndex(NamedTuple):
    """Times of a stream's packets in its time base.

    `pts` (N,) of all frames and `keyframes` (K,), where decoding may begin, are ascending; `earliest` is the first time
    of any packet. `reorder`: how many frames are decoded before a frame that is shown earlier. `exact`: each packet
    has its own time, and its frame has the same.
    """

    pts: Int64[ndarray, "n"]
    keyframes: Int64[ndarray, "k"]
    earliest: int
    reorder: int
    exact: bool


class OpenStream(NamedTuple):
    """An open file, its best video stream, and the header of an H.264 stream if that is simple."""

    container: InputContainer
    stream: VideoStream
    header: StreamHeader | None


class VideoFacts(NamedTuple):
    """Facts of a file that PyAV reads without decoding: the times of its frames in seconds, and its container."""

    timestamps: Float64[ndarray, "n"]
    container: str


def facts_for(backend: str, path: str) -> VideoFacts:
    """Read a file's packets for a backend whose frames must equal PyAV's, although it brings another ffmpeg.

    Raises:
        DecodeError: If the file is not readable, or the backend would return other pixels.
    """
    try:
        path.encode()
    except UnicodeEncodeError as e:
        reason = f"its name is not UTF-8, which {backend} needs; rename it, or use 'pyav'"
        raise DecodeError(path, reason) from e
    video = open_video_file(path)
    with video.container:
        facts = VideoFacts(seconds_of(index_packets(path, video), video), video.container.format.name)
        bits, codec = bits_of(video), video.stream.codec_context.name
    if bits > 8 or codec in INEXACT_CODECS:
        kind = f"{bits} bits per channel" if bits > 8 else f"codec {codec}"
        raise DecodeError(path, f"{kind}: {backend} rounds differently from the other decoders; use 'pyav'")
    return facts


def check_count(backend: str, path: str, *, found: int, facts: VideoFacts) -> None:
    """Raise `DecodeError` if a backend finds another number of frames than the packets have."""
    if found != len(facts.timestamps):
        raise DecodeError(path, f"{backend} finds {found} of its {len(facts.timestamps)} frames; use 'pyav'")


def seconds_of(index: PacketIndex, video: OpenStream) -> Float64[ndarray, "n"]:
    """Return the time in seconds at which each frame is first shown."""
    base = video.stream.time_base
    assert base is not None
    return index.pts.astype(np.float64) * base.numerator / base.denominator


def bits_of(video: OpenStream) -> int:
    """Return the bits per colour channel in the file; decoded frames have 8."""
    if video.header is not None:
        return video.header.depth
    pixels = video.stream.codec_context.format
    return max((part.bits for part in pixels.components), default=8) if pixels is not None else 8


def open_video_file(path: str) -> OpenStream:
    """Open `path`, without decoding a frame if its container allows that; raise `DecodeError` if it is broken."""
    video = _open(path, UNDECODED)
    if _is_complete(video):
        return video
    video.container.close()
    return _open(path, {})


def _open(path: str, options: dict[str, str]) -> OpenStream:
    container = _open_container(path, options)
    try:
        stream = _best_stream(path, container)
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
        container = av.open(path, options=options, metadata_errors="replace")  # titles may have any encoding
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
    # never AUTO: its frame threads hang on corrupt files, and a worker has one core
    stream.codec_context.thread_type = "SLICE"
    stream.codec_context.thread_count = 1
    return stream


def index_packets(path: str, video: OpenStream, *, is_truncated: bool = False) -> PacketIndex:
    """Read all packets of the stream, in decoding order; raise `DecodeError` if some are missing.

    If the file `is_truncated`, the frames before its missing end are enough. The last packet may then be incomplete:
    only frames shown before its decoding time count, and all of these exist.
    """
    found = _read_packets(path, video, is_truncated=is_truncated)
    pts, keyframes, beginnings = found.pts, found.keyframes, found.beginnings
    if is_truncated:
        pts = _before_the_cut(pts, found.last_decoded)
        kept = set(pts)
        keyframes, beginnings = ([k for k in times if k in kept] for times in (keyframes, beginnings))
    if not pts or not keyframes:
        raise DecodeError(path, f"{len(pts)} frames and {len(keyframes)} keyframes: nothing can be decoded")
    in_order = np.array(pts, np.int64)
    order = np.argsort(in_order, kind="stable")
    shown_at = in_order[order]
    if not is_truncated:
        _check_complete(path, video, found.num_packets, int(shown_at[-1] - shown_at[0]))
    # the most delayed frame waits for all frames that are decoded before it and shown after it
    reorder = int((order - np.arange(len(order))).max())
    exact = (
        found.timed
        and video.container.format.name in INDEXED_FORMATS
        and bool((shown_at[1:] > shown_at[:-1]).all())
    )
    first_decoded = pts[0] if found.first_decoded is None else found.first_decoded
    earliest = min(first_decoded, pts[0], int(shown_at[0]))
    return PacketIndex(
        shown_at, np.sort(np.array(beginnings or keyframes, np.int64)), earliest, reorder, exact
    )


@dataclass
class _Packets:
    """The times of a stream's packets in decoding order.

    `beginnings` are the keyframes of an H.264 stream at which decoding may begin. `timed`: each packet has a time to
    be shown. `first_decoded` and `last_decoded` are decoding times, if there are any.
    """

    pts: list[int] = field(default_factory=list)
    keyframes: list[int] = field(default_factory=list)
    beginnings: list[int] = field(default_factory=list)
    num_packets: int = 0
    timed: bool = True
    first_decoded: int | None = None
    last_decoded: int | None = None


def _read_packets(path: str, video: OpenStream, *, is_truncated: bool) -> _Packets:
    found = _Packets()
    try:
        for packet in video.container.demux(video.stream):
            shown, decoded, size = packet.pts, packet.dts, packet.size
            if decoded is None and shown is None and size == 0:
                continue  # the flush packet at the end
            found.num_packets += 1
            if size == 0 or packet.is_discard:  # a repeat in AVI; outside the edit list of a MOV
                continue
            when = decoded if shown is None else shown
            if when is None:
                raise DecodeError(
                    path, "its packets have no times. Remux it to mp4 or mkv, for example with ffmpeg"
                )
            if not found.pts:
                found.first_decoded = decoded
            found.timed = found.timed and shown is not None
            found.pts.append(when)
            found.last_decoded = decoded
            if packet.is_keyframe:
                found.keyframes.append(when)
                header = video.header
                if header is not None and decoding_may_begin(bytes(packet), header.length_bytes):
                    found.beginnings.append(when)
    except av.error.FFmpegError as e:
        if not is_truncated:
            raise DecodeError(path, f"cut off or broken after {len(found.pts)} frames ({e.strerror})") from e
    return found


def _before_the_cut(pts: list[int], last_decoded: int | None) -> list[int]:
    """Return the frames before the end of a truncated file, in decoding order.

    No missing frame is shown before `last_decoded`, when the last packet is decoded. If the container does not tell
    that time, this omits as many frames as H.264 may delay.
    """
    stop = last_decoded if last_decoded is not None else sorted(pts)[-MAX_REORDER:][0] if pts else 0
    return [when for when in pts[:-1] if when < stop]


def _check_complete(path: str, video: OpenStream, num_packets: int, span_pts: int) -> None:
    """Raise `DecodeError` if the header promises much more than the file has."""
    container, stream = video.container, video.stream
    if stream.frames and num_packets < TRUNCATED_SHARE * stream.frames:
        raise DecodeError(path, f"truncated: {num_packets} of {stream.frames} promised frames are there")
    rate, base = stream.average_rate, stream.time_base
    if stream.frames or not rate or not base or container.duration is None or len(container.streams) > 1:
        return
    seconds, promised = float(span_pts * base + 1 / rate), container.duration / av.time_base
    if seconds < TRUNCATED_SHARE * promised and num_packets < TRUNCATED_SHARE * promised * rate:
        raise DecodeError(path, f"truncated: {seconds:.2f} of {promised:.2f} promised seconds are there")
