"""The frames of a file by number and time: from its packets where these tell, else by decoding it once."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from vjepa.data.decoders.decoded import decoded_times, rising
from vjepa.data.decoders.h264 import decoding_may_begin, length_bytes
from vjepa.data.decoders.picture_headers import VP8, VP9, is_intra, is_shown
from vjepa.data.decoders.stream import INDEXED_FORMATS, OpenStream, bits_of, open_video_file
from vjepa.errors import DecodeError

MAX_REORDER = 16  # of H.264 (A.3.1); ffmpeg aborts the process beyond it
# a file with less than this share of what its header promises is truncated
TRUNCATED_SHARE = 0.9
UNITS = ("h264", "hevc")  # codecs whose packets tell whether decoding may begin there
UNTIMED_FORMATS = ("avi",)  # they count packets; the order of display is known to the decoder only
NO_TIMES = 0x80  # libavformat's flag AVFMT_NOTIMESTAMPS: a bare stream
DROPPING_CODECS = ("hevc", "mpeg4")  # their decoders give no frame for one that refers to a missing one
GAP_FRAMES = 1.9  # longer than this many usual steps is a gap
MISSING = "packets may be missing"
# MPEG-4 part 2 (XviD, DivX) and related codecs do not define their inverse cosine transform to the bit
INEXACT_CODECS = ("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "flv1", "wmv1", "wmv2")
CLOCK_JUMP_SECONDS = 10.0  # in a transport stream: another recording may follow


class PacketIndex(NamedTuple):
    """Times of a stream's frames in its time base.

    `pts` (N,) of all frames and `keyframes` (K,), where decoding may begin, are ascending; `earliest` is the first time
    of any packet. `reorder`: how many frames are decoded before a frame that is shown earlier. `exact`: each packet
    has its own time, and its frame has the same. `note` tells what is unusual. Without keyframes the frames are known
    by number only: the file was decoded once, and it is read from its start.
    """

    pts: Int64[ndarray, "n"]
    keyframes: Int64[ndarray, "k"]
    earliest: int
    reorder: int
    exact: bool
    note: str = ""

    @property
    def in_order(self) -> bool:
        """Whether the file is read from its start, frame by frame."""
        return not len(self.keyframes)


class VideoFacts(NamedTuple):
    """Facts of a file that PyAV reads: the times of its frames in seconds, and its container."""

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
        index = index_packets(path, video)
        facts = VideoFacts(seconds_of(index, video), video.container.format.name)
        bits, codec = bits_of(video), video.stream.codec_context.name
    if index.in_order:
        raise DecodeError(path, f"must be decoded from its start, which {backend} does not do; use 'pyav'")
    if video.header is not None and not video.header.progressive:
        raise DecodeError(path, f"interlaced: {backend} mixes the colours of its two fields; use 'pyav'")
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


def index_packets(path: str, video: OpenStream, *, is_truncated: bool = False) -> PacketIndex:
    """Return the times of all frames, from the packets or by decoding; raise `DecodeError` if some are missing.

    If the file `is_truncated`, the frames before its missing end are enough. The last packet may then be incomplete:
    only frames shown before its decoding time count, and all of these exist.
    """
    found = _read_packets(path, video, is_truncated=is_truncated)
    if not found.num_packets:
        raise DecodeError(path, "0 frames: only a header, such as the init segment of a stream")
    if reason := _why_decode(found, video):
        times = decoded_times(path, is_truncated=is_truncated)
        # a gap alone proves nothing: if decoding gives the times of the packets, these are right
        if reason != MISSING or times != sorted(found.pts):
            index = _index_by_decoding(path, times, found, video, is_truncated=is_truncated)
            without = max(found.num_packets - found.num_outside - len(times), 0)
            note = f"{reason}; it is read from its start each time"
            note += f"; {without} of its {found.num_packets} packets give no frame" if without else ""
            return index._replace(note=note)
    pts, keyframes = found.pts, found.beginnings
    if is_truncated:
        pts = _before_the_cut(pts, found.last_decoded)
        if not pts:
            raise DecodeError(path, "0 frames before its damage: nothing can be decoded")
    decoded_order = np.array(pts, np.int64)
    order = np.argsort(decoded_order, kind="stable")
    shown_at = decoded_order[order]
    if not is_truncated:
        _check_complete(path, video, found)
    # the most delayed frame waits for all frames that are decoded before it and shown after it
    reorder = int((order - np.arange(len(order))).max())
    exact = found.num_hidden == 0 and _has_one_clock(video)
    earliest = min(
        pts[0] if found.first_decoded is None else found.first_decoded, min(keyframes), int(shown_at[0])
    )
    return PacketIndex(shown_at, np.sort(np.array(keyframes, np.int64)), earliest, reorder, exact)


@dataclass
class _Packets:
    """The times of a stream's packets in decoding order.

    `pts` of the packets whose frames are shown. `beginnings`: times of the packets at which decoding may begin, also
    outside the edit list of a MOV. `begins`: whether the first packet is one. `rises`: whether decoding times rise,
    without a jump. `first_decoded` and `last_decoded` are decoding times, if there are any.
    """

    pts: list[int] = field(default_factory=list)
    beginnings: list[int] = field(default_factory=list)
    num_packets: int = 0
    num_hidden: int = 0
    num_outside: int = 0
    begins: bool = False
    timed: bool = True
    rises: bool = True
    first_decoded: int | None = None
    last_decoded: int | None = None

    @property
    def has_gap(self) -> bool:
        """Whether frames of a constant rate seem to be missing."""
        steps = np.diff(np.sort(np.array(self.pts, np.int64)))
        return len(steps) > 1 and bool(steps.max() > GAP_FRAMES * np.median(steps))


def _why_decode(found: _Packets, video: OpenStream) -> str:
    """Return why the packets do not tell a file's frames, or "" if they do."""
    name, codec = video.container.format.name, video.stream.codec_context
    if not found.timed or video.container.format.flags & NO_TIMES:
        return "its packets have no times"
    if not found.begins:
        return "it begins between two keyframes"
    if not found.rises:
        return "its clock starts again or jumps"
    if len(set(found.pts)) < len(found.pts):
        return "several packets have one time"
    if name in UNTIMED_FORMATS and (codec.name == "h264" or codec.reorder_depth):
        return "its container does not know the order in which frames are shown"
    if found.num_outside and codec.name not in UNITS:
        return "it is cut inside a group of pictures"
    if not found.pts:
        return "no packet is shown"
    if codec.name in ("mpeg1video", "mpeg2video") and found.has_gap:
        return "packets are missing"
    if codec.name in DROPPING_CODECS and found.has_gap:
        return MISSING
    return ""


def _read_packets(path: str, video: OpenStream, *, is_truncated: bool) -> _Packets:
    found = _Packets()
    try:
        for packet in video.container.demux(video.stream):
            if packet.dts is None and packet.pts is None and packet.size == 0:
                continue  # the flush packet at the end
            found.num_packets += 1
            if packet.has_sidedata("encryption_info"):
                raise DecodeError(path, "encrypted; decrypt it first")
            if packet.size:  # else a repeat in AVI
                _add(found, packet, video)
    except av.error.FFmpegError as e:
        if not is_truncated:
            raise DecodeError(path, f"cut off or broken after {len(found.pts)} frames ({e.strerror})") from e
    return found


def _add(found: _Packets, packet: av.Packet, video: OpenStream) -> None:
    """Add the times of one packet with content."""
    shown, decoded, codec = packet.pts, packet.dts, video.stream.codec_context.name
    is_first = not (found.pts or found.num_outside or found.num_hidden)
    begins = packet.is_keyframe and _may_begin(packet, video, is_first=is_first)
    if is_first:
        found.begins, found.first_decoded = begins, decoded
    if shown is None:
        found.timed = False
        return
    if decoded is not None and found.last_decoded is not None and not _has_one_clock(video):
        base = video.stream.time_base
        assert base is not None
        step = (decoded - found.last_decoded) * base
        found.rises &= 0 <= step <= CLOCK_JUMP_SECONDS
    found.last_decoded = found.last_decoded if decoded is None else decoded
    if begins:
        found.beginnings.append(shown)
    if packet.is_discard:  # outside the edit list of a MOV
        found.num_outside += 1
    elif codec not in (*VP8, *VP9) or is_shown(bytes(packet), codec):
        found.pts.append(shown)
    else:
        found.num_hidden += 1


def _has_one_clock(video: OpenStream) -> bool:
    """Return whether the container has one clock; Matroska's decoding times are estimates, which may fall."""
    return video.container.format.name in INDEXED_FORMATS


def _may_begin(packet: av.Packet, video: OpenStream, *, is_first: bool) -> bool:
    """Return whether decoding from this keyframe gives the frames of decoding from the start."""
    context = video.stream.codec_context
    if context.name not in UNITS:
        return is_intra(bytes(packet), context.name)
    # the encoder's version, which changes the decoding of 4:4:4, stands in the first packet
    if not is_first and (context.pix_fmt or "").endswith("444p") and context.name == "h264":
        return False
    return decoding_may_begin(
        bytes(packet), context.name, length_bytes(context.extradata or b"", context.name)
    )


def _index_by_decoding(
    path: str, times: list[int | None], found: _Packets, video: OpenStream, *, is_truncated: bool
) -> PacketIndex:
    """Return the index of a file that gives frames with these `times`, in order of display."""
    if not times:
        raise DecodeError(path, f"none of its {found.num_packets} packets gives a frame")
    if not is_truncated and found.begins:
        _check_complete(path, video, found)
    rises = all(a is not None and b is not None and a < b for a, b in pairwise(times))
    if not rises and video.container.format.name in UNTIMED_FORMATS:
        times = [None] * len(times)
    pts = rising(times, _frame_ticks(found, video))
    return PacketIndex(pts, np.empty(0, np.int64), int(pts[0]), 0, False)


def _frame_ticks(found: _Packets, video: OpenStream) -> int:
    """Return the usual time from one frame to the next."""
    steps = np.diff(np.sort(np.array(found.pts, np.int64)))
    steps = steps[steps > 0]
    if len(steps):
        return int(np.median(steps))
    rate, base = video.stream.average_rate or video.stream.guessed_rate or 25, video.stream.time_base
    assert base is not None
    return max(round(1 / (rate * base)), 1)


def _before_the_cut(pts: list[int], last_decoded: int | None) -> list[int]:
    """Return the frames before the end of a truncated file, in decoding order.

    `last_decoded` is the decoding time of the last packet: every frame that is shown before it is in the file. If the
    container does not tell that time, this omits as many frames as H.264 may delay.
    """
    stop = last_decoded if last_decoded is not None else sorted(pts)[-MAX_REORDER:][0] if pts else 0
    return [when for when in pts[:-1] if when < stop]


def _check_complete(path: str, video: OpenStream, found: _Packets) -> None:
    """Raise `DecodeError` if the header promises much more than the file has."""
    container, stream = video.container, video.stream
    num_packets = found.num_packets
    if container.format.name in UNTIMED_FORMATS and found.last_decoded is not None:
        num_packets = max(num_packets, found.last_decoded + 1)  # its header counts ticks of the clock
    if stream.frames and num_packets < TRUNCATED_SHARE * stream.frames:
        raise DecodeError(path, f"truncated: {num_packets} of {stream.frames} promised frames are there")
    rate, base = stream.average_rate, stream.time_base
    if stream.frames or not rate or not base or container.duration is None or len(container.streams) > 1:
        return
    last, first = (max(found.pts), min(found.pts)) if found.pts else (0, 0)
    if _has_one_clock(video):
        first = min(first, 0)  # its duration counts from 0, also if the first frame is shown later
    seconds, promised = float((last - first) * base + 1 / rate), container.duration / av.time_base
    if seconds < TRUNCATED_SHARE * promised and num_packets < TRUNCATED_SHARE * promised * rate:
        raise DecodeError(path, f"truncated: {seconds:.2f} of {promised:.2f} promised seconds are there")
