"""Decoding with PyAV: ffmpeg's libraries inside the wheel, on every platform."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from einops import rearrange
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.base import Box, DecodeError, Decoder, check_indices
from vjepa.data.packets import OpenVideo, PacketIndex, index_packets, open_video_file

Places = dict[int, list[int]]  # by the time of a frame, where it goes


class PyAVDecoder(Decoder):
    """Reads with PyAV. Frame numbers and times come from the packets in the file, never from its header."""

    def __init__(self, *, path: str, video: OpenVideo, index: PacketIndex) -> None:
        self._path = path
        self._container, self._stream, self._header = video
        self._index = index
        self._may_skip = self._header is not None and self._header.may_skip
        context = self._stream.codec_context
        if context.reorder_depth < index.reorder:  # else H.264 without a hint gives late frames up at first
            context.reorder_depth = index.reorder
        base = self._stream.time_base
        assert base is not None
        self._timestamps = index.pts.astype(np.float64) * base.numerator / base.denominator

    @classmethod
    def open(cls, path: str | Path) -> PyAVDecoder:
        path = str(path)
        video = open_video_file(path)
        try:
            index = index_packets(path, video)
        except BaseException:
            video.container.close()
            raise
        return cls(path=path, video=video, index=index)

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    @property
    def bits(self) -> int:
        """Bits of a colour channel in the file; decoded frames have 8."""
        if self._header is not None:
            return self._header.depth
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
        return self.frames_in(indices, _whole)

    def frames_in(self, indices: list[int], choose: Callable[[int, int], Box]) -> UInt8[Tensor, "t c h w"]:
        check_indices(self._path, indices, self.num_frames)
        pixels = _Pixels(self._path, len(indices), choose)
        places: Places = {}
        for place, index in enumerate(indices):
            places.setdefault(int(self._index.pts[index]), []).append(place)
        found = all(self._decode(start, part, pixels) for start, part in self._by_keyframe(places))
        # MPEG program streams seek by decoding time and miss the keyframe
        if not (found or self._decode(self._index.earliest, places, pixels)):
            raise DecodeError(self._path, f"not all of the {len(places)} frames asked for could be decoded")
        assert pixels.frames is not None
        return rearrange(torch.from_numpy(pixels.frames), "t h w c -> t c h w")

    def _by_keyframe(self, places: Places) -> Iterator[tuple[int, Places]]:
        """The frames that are decoded from each keyframe, with its time; from one alone where seeking may miss."""
        times = np.array(sorted(places), np.int64)
        before = np.searchsorted(self._index.keyframes, times, side="right") - 1
        starts = self._index.keyframes[np.maximum(before, 0)]
        if not self._index.exact:
            starts = np.full_like(starts, starts[0])
        for start in np.unique(starts).tolist():
            yield start, {time: places[time] for time in times[starts == start].tolist()}

    def _decode(self, start_pts: int, places: Places, pixels: _Pixels) -> bool:
        """Decode from the keyframe at `start_pts` to the last frame wanted; False if one was passed over."""
        missing, last = set(places), max(places)
        try:
            self._container.seek(start_pts, stream=self._stream)
            for frame in self._frames(places):
                if frame.pts in missing:
                    pixels.put(frame, places[frame.pts])
                    missing.discard(frame.pts)
                if not missing or (frame.pts is not None and frame.pts > last):
                    break
        except av.error.FFmpegError as e:
            found = len(places) - len(missing)
            raise DecodeError(
                self._path, f"broken data: {found} of {len(places)} frames decoded ({e.strerror})"
            ) from e
        return not missing

    def _frames(self, wanted: Iterable[int]) -> Iterator[av.VideoFrame]:
        """Frames from here to the last wanted one, but for those that no other refers to, where that is safe."""
        context, coming = self._stream.codec_context, set(wanted)
        for packet in self._container.demux(self._stream):
            is_wanted = packet.pts is None or packet.pts in coming
            if self._may_skip:
                context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            yield from packet.decode()
            if is_wanted and self._index.exact:
                coming.discard(packet.pts)
                if not coming:  # all are in the decoder, which holds some back
                    yield from self._stream.decode(None)
                    return


class _Pixels:
    """RGB of the wanted parts of frames, each converted once and copied to its places.

    Args:
        path: the file, for errors.
        num_frames: how many places there are.
        choose: gives the wanted part of a frame by its height and width; asked at the first frame.
    """

    def __init__(self, path: str, num_frames: int, choose: Callable[[int, int], Box]) -> None:
        self.frames: UInt8[ndarray, "t h w 3"] | None = None
        self._path = path
        self._num_frames = num_frames
        self._choose = choose
        self._box, self._size = Box(0, 0, 0, 0), (0, 0)
        self._to_rgb = VideoReformatter()

    def put(self, frame: av.VideoFrame, places: list[int]) -> None:
        """Convert and keep a frame."""
        # one thread for the colours: ffmpeg's automatic choice costs 1.4 ms instead of 0.05 ms at 64 x 64
        plane = self._to_rgb.reformat(frame, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        rgb = rearrange(rows[:, : 3 * plane.width], "h (w c) -> h w c", c=3)
        if turns := round(frame.rotation / 90) % 4:  # counter-clockwise, as the file asks for
            rgb = np.rot90(rgb, turns)
        size = rgb.shape[0], rgb.shape[1]
        if self.frames is None:
            self._size, self._box = size, self._choose(*size)
            self.frames = np.empty((self._num_frames, self._box.height, self._box.width, 3), np.uint8)
        if size != self._size:
            raise DecodeError(self._path, f"changes size from {self._size} to {size}")
        top, left, height, width = self._box
        for place in places:
            self.frames[place] = rgb[top : top + height, left : left + width]


def _whole(height: int, width: int) -> Box:
    return Box(0, 0, height, width)
