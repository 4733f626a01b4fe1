"""Decoder with PyAV, which brings ffmpeg's libraries in its wheel for every platform."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from einops import rearrange
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.base import Decoder, check_indices
from vjepa.data.decoders.decoded import decode_in_order
from vjepa.data.decoders.packets import MAX_REORDER, PacketIndex, index_packets, seconds_of
from vjepa.data.decoders.stream import OpenStream, broken, open_video_file
from vjepa.errors import DecodeError

NUM_CHECKED = 3  # seeks that a pass through a file compares with it
Places = dict[int, list[int]]  # from a frame's time, or its number, to its positions in the result


class PyAVDecoder(Decoder):
    """A decoder with PyAV; frame indices and times come from the packets in the file, never from its header."""

    def __init__(self, *, path: str, video: OpenStream, index: PacketIndex) -> None:
        self._path = path
        self._container, self._stream, self._header = video
        self._index = index
        self._may_skip = self._header is not None and self._header.may_skip
        context = self._stream.codec_context
        # without this hint, the decoder drops late frames of H.264 at first; beyond the limit the file is broken
        if self._header is not None and context.reorder_depth < index.reorder <= MAX_REORDER:
            context.reorder_depth = index.reorder
        self._timestamps = seconds_of(index, video)
        self._in_order = _InOrder(path) if index.in_order else None

    @classmethod
    def open(cls, path: str | Path, *, index: PacketIndex | None = None) -> PyAVDecoder:
        """Open `path`; read its packets unless `index` has them."""
        path = str(path)
        video = open_video_file(path)
        try:
            index = index_packets(path, video) if index is None else index
        except BaseException:
            video.container.close()
            raise
        return cls(path=path, video=video, index=index)

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    @property
    def note(self) -> str:
        return self._index.note

    def through(self, at_once: int, *, thorough: bool = False) -> Iterator[UInt8[Tensor, "t c h w"]]:
        reader, sample = _InOrder(self._path), self._after_seeks()
        for start in range(0, self.num_frames, at_once):
            numbers = range(start, min(start + at_once, self.num_frames))
            pictures = _Pictures(self._path, len(numbers))
            reader.read({number: [number - start] for number in numbers}, pictures)
            frames = rearrange(torch.from_numpy(pictures.frames), "t h w c -> t c h w")
            checked = list(numbers) if thorough else [number for number in sample if number in numbers]
            if checked and not torch.equal(
                self.frames_at(checked), frames[[number - start for number in checked]]
            ):
                raise DecodeError(
                    self._path, "frames read by index differ from a full decode; encode it again"
                )
            yield frames
        reader.check_end(self.num_frames)

    def _after_seeks(self) -> list[int]:
        """Return the frames at some keyframes, the first ones after a seek."""
        keyframes = self._index.keyframes
        chosen = (
            keyframes[np.linspace(0, len(keyframes) - 1, NUM_CHECKED).astype(int)] if len(keyframes) else []
        )
        numbers = np.searchsorted(self._index.pts, chosen)
        return sorted({int(n) for n in numbers if 0 < n < self.num_frames})

    def close(self) -> None:
        self._container.close()
        if self._in_order:
            self._in_order.close()

    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        check_indices(self._path, indices, self.num_frames)
        pictures = _Pictures(self._path, len(indices))
        places: Places = {}
        for place, index in enumerate(indices):
            places.setdefault(index if self._in_order else int(self._index.pts[index]), []).append(place)
        if self._in_order:
            self._in_order.read(places, pictures)
        else:
            self._read_by_time(places, pictures)
        return rearrange(torch.from_numpy(pictures.frames), "t h w c -> t c h w")

    def _read_by_time(self, places: Places, pictures: _Pictures) -> None:
        whole = all(self._decode(start, part, pictures) for start, part in self._runs(places).items())
        # MPEG program streams seek by decoding time and miss the keyframe: they are read from their start
        if not whole and not self._decode(self._index.earliest, places, pictures):
            raise DecodeError(
                self._path, f"not all of the {len(places)} requested frames could be decoded whole"
            )

    def _runs(self, places: Places) -> dict[int, Places]:
        """Group the requested frames by the last keyframe before them, where decoding starts."""
        times = np.array(sorted(places), np.int64)
        before = np.searchsorted(self._index.keyframes, times, side="right") - 1
        runs: dict[int, Places] = {}
        starts = self._index.keyframes[np.maximum(before, 0)]
        for start, pts in zip(starts.tolist(), times.tolist(), strict=True):
            runs.setdefault(start, {})[pts] = places[pts]
        return runs

    def _decode(self, start_pts: int, places: Places, pictures: _Pictures) -> bool:
        """Decode from the keyframe at `start_pts` to the last requested frame; return whether all were found."""
        missing, last = set(places), max(places)
        try:
            self._container.seek(start_pts, stream=self._stream)
            for frame in self._frames(places):
                if frame.pts in missing and not frame.is_corrupt:
                    pictures.put(frame, places[frame.pts])
                    missing.discard(frame.pts)
                if not missing or (frame.pts is not None and frame.pts > last):
                    break
        except av.error.FFmpegError as e:
            found = len(places) - len(missing)
            raise broken(self._path, f"{found} of {len(places)} frames decoded", e) from e
        return not missing

    def _frames(self, wanted: Iterable[int]) -> Iterator[av.VideoFrame]:
        """Yield frames up to the last wanted one; skip unwanted ones that no other frame refers to, if it is safe."""
        context, coming = self._stream.codec_context, set(wanted)
        for packet in self._container.demux(self._stream):
            if packet.size == 0 and packet.pts is not None:
                continue  # Theora: repeats the last picture; it has no index, and ffmpeg reports it as an error
            is_wanted = packet.pts is None or packet.pts in coming
            if self._may_skip:
                context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            yield from packet.decode()
            if is_wanted and self._index.exact:
                coming.discard(packet.pts)
                if not coming:  # all are in the decoder, which delays some
                    yield from self._stream.decode(None)
                    return


class _InOrder:
    """Reads frames by number from the start of a file; continues after the last request if it can."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._frames: Generator[av.VideoFrame] | None = None
        self._next = 0

    def read(self, places: Places, pictures: _Pictures) -> None:
        """Write the frames with the numbers of `places` to their positions."""
        if self._frames is None or min(places) < self._next:
            self.close()
            self._frames = decode_in_order(self._path)
        missing = set(places)
        for frame in self._frames:
            number, self._next = self._next, self._next + 1
            if number in missing:
                if frame.is_corrupt:
                    raise DecodeError(self._path, f"frame {number} is damaged, as the decoder says")
                pictures.put(frame, places[number])
                missing.discard(number)
            if not missing:
                return
        raise DecodeError(
            self._path, f"{len(missing)} of {len(places)} requested frames could not be decoded"
        )

    def check_end(self, num_frames: int) -> None:
        """Raise `DecodeError` if there are more than `num_frames` frames; close the file."""
        more = self._frames is not None and next(self._frames, None) is not None
        self.close()
        if more:
            raise DecodeError(
                self._path, f"a full decode gives more than the {num_frames} frames of its packets"
            )

    def close(self) -> None:
        """Close the file."""
        if self._frames is not None:
            self._frames.close()
        self._frames, self._next = None, 0


class _Pictures:
    """The RGB frames of one request, filled while they are decoded."""

    def __init__(self, path: str, num_frames: int) -> None:
        self._path, self._num_frames = path, num_frames
        self._to_rgb = VideoReformatter()
        self._frames: UInt8[ndarray, "t h w 3"] | None = None

    @property
    def frames(self) -> UInt8[ndarray, "t h w 3"]:
        """All frames, after at least one `put`."""
        assert self._frames is not None
        return self._frames

    def put(self, frame: av.VideoFrame, places: list[int]) -> None:
        """Write a decoded frame to its positions."""
        # one thread for the conversion: ffmpeg's automatic choice costs 1.4 ms instead of 0.05 ms at 64 x 64
        plane = self._to_rgb.reformat(frame, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        rgb = rearrange(rows[:, : 3 * plane.width], "h (w c) -> h w c", c=3)
        if turns := round(frame.rotation / 90) % 4:  # counter-clockwise, as the file specifies
            rgb = np.rot90(rgb, turns)
        if self._frames is None:
            self._frames = np.empty((self._num_frames, *rgb.shape), np.uint8)
        if rgb.shape != self._frames.shape[1:]:
            raise DecodeError(self._path, f"changes size from {self._frames.shape[1:3]} to {rgb.shape[:2]}")
        for place in places:
            self._frames[place] = rgb
