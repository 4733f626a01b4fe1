"""Decoder with decord, which has wheels for x86-64 Linux and Windows."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.base import Decoder, check_indices, first_line
from vjepa.data.decoders.packets import check_count, facts_for
from vjepa.errors import DecodeError, MissingPackageError

# decord's prefix of its reason: "[22:33:55] /github/workspace/src/video/video_reader.cc:151: "
PLACE = re.compile(r"(\[\d\d:\d\d:\d\d\] \S+:\d+: )+")


class DecordDecoder(Decoder):
    """A decoder with decord, as in the reference code; frames are numbered by the packets in the file.

    It does not read AV1 and GIF. It refuses files whose frames differ from the other backends': MPEG transport
    streams, MPEG-4 part 2, more than 8 bits per channel, and some narrower than 64 pixels.
    Decoding always begins at the start of the file. After a seek, decord returns wrong frames without an error in
    MPEG streams and in videos with open groups of pictures or intra refresh.
    """

    def __init__(self, path: str) -> None:
        _decord()
        facts = facts_for("decord", path)
        if facts.container == "mpegts":
            raise DecodeError(path, "an MPEG transport stream: decord counts its frames wrongly; use 'pyav'")
        self._path, self._timestamps = path, facts.timestamps
        self._reader = _reader(path)
        self._next = 0  # index of the frame that the reader returns next
        check_count("decord", path, found=len(self._reader), facts=facts)

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    def close(self) -> None:
        self._reader = None

    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        check_indices(self._path, indices, self.num_frames)
        wanted = set(indices)
        if min(wanted) < self._next:
            self._reader, self._next = _reader(self._path), 0  # even a seek to frame 0 may end elsewhere
        kept: dict[int, UInt8[ndarray, "h w 3"]] = {}
        try:
            while len(kept) < len(wanted):
                frame = self._reader.next()
                if self._next in wanted:
                    kept[self._next] = frame.asnumpy()
                self._next += 1
        except (_decord().DECORDError, RuntimeError, StopIteration) as e:
            raise DecodeError(
                self._path,
                f"decord decodes {len(kept)} of the {len(wanted)} requested frames ({_reason(e)})",
            ) from e
        if len({pixels.shape for pixels in kept.values()}) > 1:
            raise DecodeError(self._path, "the size of its frames changes")
        channels = kept[indices[0]].shape[2]
        if channels != 3:  # it divides the bytes of a padded row by the width, such as 192 by 48
            raise DecodeError(self._path, f"decord reads {channels} channels from narrow videos; use 'pyav'")
        return rearrange(torch.from_numpy(np.stack([kept[index] for index in indices])), "t h w c -> t c h w")


def _decord() -> Any:
    try:
        import decord
    except (ImportError, OSError) as e:
        raise MissingPackageError(
            f"decoder 'decord' needs the package decord: {first_line(e)}. Run `pip install decord` (x86-64 Linux "
            "and Windows), or use decoder 'pyav', which reads the same frames."
        ) from e
    return decord


def _reader(path: str) -> Any:
    decord = _decord()
    try:
        return decord.VideoReader(os.path.abspath(path), num_threads=1)
    except (decord.DECORDError, RuntimeError) as e:
        raise DecodeError(path, f"not a video that decord can read ({_reason(e)})") from e


def _reason(error: BaseException) -> str:
    return PLACE.sub("", first_line(error))
