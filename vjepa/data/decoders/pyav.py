"""Decoding with PyAV: ffmpeg's libraries inside the wheel, on every platform."""

from __future__ import annotations

import bisect
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from einops import rearrange
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.base import DecodeError, Decoder, check_indices
from vjepa.data.h264 import read_header

# a file that holds less than this share of what its header promises was cut off
TRUNCATED_SHARE = 0.9


class _PacketIndex(NamedTuple):
    """Times of a stream's packets in its time base: all frames, the keyframes, the earliest of any."""

    pts: list[int]
    keyframes: list[int]
    earliest: int


class PyAVDecoder(Decoder):
    """Reads with PyAV. Frame numbers and times come from the packets in the file, never from its header."""

    def __init__(
        self, *, path: str, container: InputContainer, stream: VideoStream, index: _PacketIndex
    ) -> None:
        self._path = path
        self._container = container
        self._stream = stream
        self._index = index
        header = read_header(stream.codec_context.extradata or b"") if stream.codec.name == "h264" else None
        self._may_skip = header is not None and header.may_skip
        base = stream.time_base
        assert base is not None
        self._timestamps = np.asarray(index.pts, np.float64) * base.numerator / base.denominator

    @classmethod
    def open(cls, path: str | Path) -> PyAVDecoder:
        path = str(path)
        container = _open_container(path)
        try:
            stream = _best_stream(path, container)
            index = _index_packets(path, container, stream)
        except BaseException:
            container.close()
            raise
        return cls(path=path, container=container, stream=stream, index=index)

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    @property
    def bits(self) -> int:
        """Bits of a colour channel in the file; decoded frames have 8."""
        pixels = self._stream.codec_context.format
        return max((part.bits for part in pixels.components), default=8) if pixels is not None else 8

    @property
    def container(self) -> str:
        """Name of the container's format, such as "mov,mp4,m4a,3gp,3g2,mj2"."""
        return self._container.format.name

    @property
    def codec(self) -> str:
        """Name of the stream's codec, such as "h264"."""
        return self._stream.codec_context.name

    def close(self) -> None:
        self._container.close()

    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        check_indices(self._path, indices, self.num_frames)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            places.setdefault(self._index.pts[index], []).append(place)
        keyframes = self._index.keyframes
        nearest = keyframes[max(bisect.bisect_right(keyframes, min(places)) - 1, 0)]
        frames = self._decode(nearest, places, len(indices))
        if frames is None:  # MPEG program streams seek by decoding time and miss the keyframe
            frames = self._decode(self._index.earliest, places, len(indices))
        if frames is None:
            raise DecodeError(self._path, f"not all of the {len(places)} frames asked for could be decoded")
        return rearrange(torch.from_numpy(frames), "t h w c -> t c h w")

    def _decode(
        self, start_pts: int, places: dict[int, list[int]], num_frames: int
    ) -> UInt8[ndarray, "t h w 3"] | None:
        """Decode from the keyframe at `start_pts` to the last frame wanted; None if one was passed over."""
        last, missing = max(places), len(places)
        # one thread for the colours: ffmpeg's automatic choice costs 1.4 ms instead of 0.05 ms at 64 x 64
        to_rgb = VideoReformatter()
        frames: UInt8[ndarray, "t h w 3"] | None = None
        try:
            self._container.seek(start_pts, stream=self._stream)
            for frame in self._frames(places):
                for place in places.get(frame.pts, ()) if frame.pts is not None else ():
                    rgb = to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
                    if turns := round(frame.rotation / 90) % 4:  # counter-clockwise, as the file asks for
                        rgb = np.rot90(rgb, turns)
                    if frames is None:
                        frames = np.empty((num_frames, *rgb.shape), np.uint8)
                    if rgb.shape != frames.shape[1:]:
                        raise DecodeError(
                            self._path, f"changes size from {frames.shape[1:3]} to {rgb.shape[:2]}"
                        )
                    frames[place] = rgb
                missing -= frame.pts in places
                if missing == 0 or (frame.pts is not None and frame.pts > last):
                    break
        except av.error.FFmpegError as e:
            found = len(places) - missing
            raise DecodeError(
                self._path, f"broken data: {found} of {len(places)} frames decoded ({e.strerror})"
            ) from e
        return frames if missing == 0 else None

    def _frames(self, wanted: Container[int]) -> Iterator[av.VideoFrame]:
        """Frames from here on, but for those that are not wanted and that no other refers to, where that is safe."""
        context = self._stream.codec_context
        for packet in self._container.demux(self._stream):
            if self._may_skip:
                context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
            yield from packet.decode()


def _open_container(path: str) -> InputContainer:
    try:
        if Path(path).stat().st_size == 0:
            raise DecodeError(path, "the file is empty (0 bytes)")
        container = av.open(path)
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


def _index_packets(path: str, container: InputContainer, stream: VideoStream) -> _PacketIndex:
    pts: list[int] = []
    keyframes: list[int] = []
    earliest = sys.maxsize
    num_packets = 0
    try:
        for packet in container.demux(stream):
            if packet.dts is None and packet.pts is None and packet.size == 0:
                continue  # the flush packet at the end
            num_packets += 1
            when = packet.pts if packet.pts is not None else packet.dts
            if packet.size == 0 or packet.is_discard:  # a repeat in AVI; outside the edit list of a MOV
                continue
            if when is None:
                raise DecodeError(
                    path, "its packets carry no times. Remux it to mp4 or mkv, for example with ffmpeg"
                )
            pts.append(when)
            earliest = min(earliest, when, when if packet.dts is None else packet.dts)
            if packet.is_keyframe:
                keyframes.append(when)
    except av.error.FFmpegError as e:
        raise DecodeError(path, f"cut off or broken after {len(pts)} frames ({e.strerror})") from e
    if not pts or not keyframes:
        raise DecodeError(path, f"{len(pts)} frames and {len(keyframes)} keyframes: nothing can be decoded")
    pts.sort()
    _check_complete(path, container, stream, num_packets, pts[-1] - pts[0])
    return _PacketIndex(pts, sorted(keyframes), earliest)


def _check_complete(
    path: str, container: InputContainer, stream: VideoStream, num_packets: int, span_pts: int
) -> None:
    """Raise `DecodeError` where the header promises much more than the file holds."""
    if stream.frames and num_packets < TRUNCATED_SHARE * stream.frames:
        raise DecodeError(path, f"truncated: {num_packets} of {stream.frames} promised frames are there")
    rate, base = stream.average_rate, stream.time_base
    if stream.frames or not rate or not base or container.duration is None or len(container.streams) > 1:
        return
    seconds, promised = float(span_pts * base + 1 / rate), container.duration / av.time_base
    if seconds < TRUNCATED_SHARE * promised and num_packets < TRUNCATED_SHARE * promised * rate:
        raise DecodeError(path, f"truncated: {seconds:.2f} of {promised:.2f} promised seconds are there")
