"""Clips to make features of: the windows of each video, in order, with their place in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from vjepa.data import DecodeError, Decoder, EvalTransform, Manifest, ManifestRow, ShortVideoError, open_video
from vjepa.data.decoders.base import Opener
from vjepa.data.decoders.readable_prefix import OpenVideo, ReadablePrefix
from vjepa.data.sampling import is_padded, usable_part
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.windows import blocks
from vjepa.types import ClipFailure, PixelScale

REQUEST_BYTES = 64e6  # of decoded frames that lie in memory at once, or one window if that is more


@dataclass(frozen=True)
class WindowBlock:
    """Neighbouring windows of manifest row `row` in bytes, from window number `first` on.

    `seconds` (W, 2) says when the first and the last frame of each window is shown. With a `failure`, the windows
    after these, or the whole video, cannot be read. `padded` says which windows repeat the last frame of a video that
    is too short.
    """

    row: int
    first: int
    video: UInt8[Tensor, "w 3 t h w2"]
    seconds: Float64[Tensor, "w 2"]
    scale: PixelScale
    failure: ClipFailure | None = None
    padded: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.video)


class WindowClips(IterableDataset[WindowBlock]):
    """The windows of the rows of a manifest, in order; at least one block per row, even if it is empty.

    Workers take blocks in turn, so that one long video keeps all of them busy. A video is decoded from front to
    end in requests of bounded size: its length costs no memory.

    Args:
        manifest: Which videos.
        spec: How they are cut, in one segment and one view.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a `Decoder`.
        todo: Rows of the manifest to read, each with the first window to read.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        spec: ClipSpec,
        decoder: str = "auto",
        todo: Sequence[tuple[int, int]],
    ) -> None:
        transform = spec.transform()
        assert isinstance(transform, EvalTransform) and spec.segments == 1
        self.manifest, self.spec, self.transform, self.todo = manifest, spec, transform, todo
        # a window of a broken video is where it was in the whole one; the clip from its middle would be another
        self._videos = ReadablePrefix(decoder, parts=spec.windows is not None)
        self._window_bytes = 0  # as decoded, of the last one

    def __iter__(self) -> Iterator[WindowBlock]:
        worker = get_worker_info()
        place, of = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = 0  # of the next block: each worker counts all of them and reads its own
        for row, first in self.todo:
            if self.spec.windows is None and number % of != place:  # one block, whatever the video is
                number += 1
                continue
            for read in self._blocks(row, first, number, place, of):
                number += 1
                if read is not None:
                    yield read

    def _blocks(
        self, index: int, first: int, number: int, place: int, of: int
    ) -> Iterator[WindowBlock | None]:
        """Yield the blocks of a row; None in place of one that is another worker's."""
        row = self.manifest.rows[index]
        try:
            with self._videos.open(row.path) as opened:
                cut = opened.failure
                frames = self._frames(row, opened.video.timestamps, cut)
                wanted = list(blocks(frames, first)) or [range(first, first)]
                for turn, block in enumerate(wanted, start=number):
                    mine = turn % of == place
                    failure = cut if block is wanted[-1] else None
                    made = self._read(index, row, opened, frames, block) if mine else None
                    yield made if made is None or made.failure else replace(made, failure=failure)
        except (DecodeError, ShortVideoError) as error:
            reason = error.reason if isinstance(error, DecodeError) else str(error)
            yield self._nothing(index, first, ClipFailure(row.path, reason)) if number % of == place else None

    def _frames(
        self, row: ManifestRow, shown: Float64[ndarray, "n"], cut: ClipFailure | None
    ) -> Int64[ndarray, "w t"]:
        try:
            return self.spec.frames(shown, row.start, row.end)
        except ShortVideoError as error:
            if cut is None:
                raise
            raise DecodeError(row.path, f"{cut.reason}; {error}") from error

    def _read(
        self,
        index: int,
        row: ManifestRow,
        opened: OpenVideo,
        frames: Int64[ndarray, "w t"],
        block: range,
    ) -> WindowBlock:
        """Read one block, up to the first of its windows that cannot be read."""
        clips: list[Tensor] = []
        shown = opened.video.timestamps
        failure, at_once = None, 1  # then as many as fit
        while failure is None and len(clips) < len(block):
            begin = block[len(clips)]
            chosen = frames[begin : min(begin + at_once, block.stop)]
            try:
                clips += self._decode(opened.video, chosen)
            except DecodeError:
                readable, failure = self._one_by_one(opened.open_again, row.path, chosen)
                clips += readable
            at_once = max(1, int(REQUEST_BYTES / max(1, self._window_bytes)))
        if failure is not None and (bad := block.start + len(clips)):
            late = float(shown[frames[bad][0]])
            failure = ClipFailure(row.path, f"{failure.reason}; nothing is read from {late:.2f} s on")
        read = frames[block.start : block.start + len(clips)]
        if not clips:
            return self._nothing(index, block.start, failure)
        seconds = torch.from_numpy(np.stack([shown[read[:, 0]], shown[read[:, -1]]], axis=1))
        part = usable_part(shown, row.start, row.end)
        padded = tuple(is_padded(window, part) for window in read)
        return WindowBlock(
            index, block.start, torch.stack(clips), seconds, self.spec.pixel_scale, failure, padded
        )

    def _decode(self, video: Decoder, frames: Int64[ndarray, "w t"]) -> list[UInt8[Tensor, "3 t h w2"]]:
        """Decode windows together: a frame they share is decoded and resized once."""
        needed, place = np.unique(frames, return_inverse=True)
        decoded = video.frames_at(needed.tolist())
        self._window_bytes = decoded[0].nbytes * frames.shape[1]
        ready = self.transform.pixels(decoded)
        return [ready[:, torch.from_numpy(one)] for one in place.reshape(frames.shape)]

    def _one_by_one(
        self, open_again: Opener, path: str, frames: Int64[ndarray, "w t"]
    ) -> tuple[list[Tensor], ClipFailure | None]:
        """Read the windows before the first that cannot be read alone; the result does not depend on the block."""
        clips: list[Tensor] = []
        for one in frames:
            try:
                with open_video(open_again, path) as again:  # a decoder that hung is gone
                    clips += self._decode(again, one[None])
            except DecodeError as error:
                return clips, ClipFailure(path, error.reason)
        return clips, None

    def _nothing(self, index: int, first: int, failure: ClipFailure | None) -> WindowBlock:
        height, width = self.transform.size
        empty = torch.empty(0, 3, self.spec.num_frames, height, width, dtype=torch.uint8)
        seconds = torch.empty(0, 2, dtype=torch.float64)
        return WindowBlock(index, first, empty, seconds, self.spec.pixel_scale, failure)
