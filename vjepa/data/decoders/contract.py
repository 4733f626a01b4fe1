"""The check that a decoder returns what its interface promises, for every opened video, also in a child process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.base import Decoder
from vjepa.errors import DecodeError

SEE = "correct the decoder, see docs/howto/decoder.md"


class CheckedDecoder(Decoder):
    """An open video whose timestamps and frames are checked against the interface.

    Raises:
        DecodeError: If there is no frame, or timestamps are not finite or fall.
    """

    def __init__(self, path: str | Path, video: Decoder) -> None:
        self._path, self._video = path, video
        shown: object = video.timestamps  # a decoder of one's own may return anything
        if not isinstance(shown, ndarray) or shown.dtype != np.float64 or shown.ndim != 1:
            raise self._broken(f"timestamps are {_described(shown)}, not float64 (n,)")
        if not len(shown):
            raise self._broken("there is no frame")
        if not np.isfinite(shown).all():
            raise self._broken(f"the time of frame {np.isfinite(shown).argmin()} is not finite")
        if (falls := np.diff(shown) < 0).any():
            late = int(falls.argmax())
            raise self._broken(
                f"frame {late + 1} is at {shown[late + 1]:g} s, before frame {late} at {shown[late]:g} s"
            )
        self._timestamps = shown

    @classmethod
    def open(cls, path: str | Path) -> Decoder:
        """Open `path` with the decoder `auto`."""
        from vjepa.data.decoders.auto import AutoDecoder

        return cls(path, AutoDecoder.open(path))

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    @property
    def fps(self) -> float:
        return self._video.fps

    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        """Return the frames; raise `DecodeError` if they are not uint8 (T, 3, H, W) with one per index."""
        frames: object = self._video.frames_at(indices)
        right = isinstance(frames, Tensor) and frames.dtype == torch.uint8 and frames.ndim == 4
        if not isinstance(frames, Tensor) or not right or frames.shape[:2] != (len(indices), 3):
            raise self._broken(
                f"{len(indices)} frames were requested, the result is {_described(frames)}, not uint8 "
                f"({len(indices)}, 3, H, W)"
            )
        return frames

    def close(self) -> None:
        self._video.close()

    def _broken(self, what: str) -> DecodeError:
        return DecodeError(self._path, f"{what}: {SEE}")


def _described(found: object) -> str:
    if isinstance(found, Tensor | ndarray):
        return f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"
    return type(found).__name__
