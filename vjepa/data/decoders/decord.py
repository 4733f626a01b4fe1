"""Decoding with decord, where it has wheels: x86-64 Linux and Windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.base import DecodeError, Decoder, check_indices


class DecordDecoder(Decoder):
    """Reads with decord, as the reference code does. Applies a file's rotation; reads no AV1 and no GIF."""

    def __init__(self, *, path: str, reader: Any) -> None:
        self._path = path
        self._reader = reader
        self._timestamps = np.asarray(reader.get_frame_timestamp(range(len(reader)))[:, 0], np.float64)

    @classmethod
    def open(cls, path: str | Path) -> DecordDecoder:
        try:
            import decord
        except ImportError as e:
            raise ImportError(
                "decoder 'decord' needs the package decord, which is not installed. Run `pip install decord` "
                "(x86-64 Linux and Windows), or use decoder 'pyav', which reads the same frames."
            ) from e
        path = str(path)
        try:
            if Path(path).stat().st_size == 0:
                raise DecodeError(path, "the file is empty (0 bytes)")
            reader = decord.VideoReader(path, num_threads=1)
        except (decord.DECORDError, RuntimeError) as e:
            if isinstance(e, DecodeError):
                raise
            raise DecodeError(path, f"no video that decord can read ({_first_line(e)})") from e
        except OSError as e:
            raise DecodeError(path, f"cannot be opened ({e.strerror})") from e
        if len(reader) == 0:
            raise DecodeError(path, "0 frames: nothing can be decoded")
        return cls(path=path, reader=reader)

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    def close(self) -> None:
        self._reader = None

    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        import decord

        check_indices(self._path, indices, self.num_frames)
        try:
            frames = self._reader.get_batch(list(indices)).asnumpy()
        except decord.DECORDError as e:
            raise DecodeError(
                self._path,
                f"decord cannot decode {len(indices)} of its frames; try the decoder pyav ({_first_line(e)})",
            ) from e
        return rearrange(torch.from_numpy(frames), "t h w c -> t c h w")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
