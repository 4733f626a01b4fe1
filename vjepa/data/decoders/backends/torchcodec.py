"""Decoder with torchcodec, which uses the system's ffmpeg libraries."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.base import Decoder, check_indices, first_line
from vjepa.data.decoders.packets import check_count, facts_for
from vjepa.errors import DecodeError, MissingPackageError

ADVICE = (
    'Run `pip install "vjepa-toolkit[torchcodec]"` and install the shared libraries of ffmpeg (4 to 8), which it '
    "does not contain; or use decoder 'pyav', which reads the same frames and needs neither."
)
# torchcodec's prefix of its reason: "decode_av_frame, /src/torchcodec/_core/SingleStreamDecoder.cpp:1493, "
PLACE = re.compile(r"^\w+, \S+:\d+, ")
SAME_TIME_SECONDS = 1e-4  # a frame this far from its packet's time is another frame


class TorchCodecDecoder(Decoder):
    """A decoder with torchcodec; frames are numbered by the packets in the file, as for every backend.

    It refuses files of which it would return other pixels (`facts_for`).
    """

    def __init__(self, path: str) -> None:
        reader_class = _video_decoder()
        facts = facts_for("torchcodec", path)
        self._path, self._timestamps = path, facts.timestamps
        try:
            self._reader = reader_class(os.path.abspath(path), num_ffmpeg_threads=1, seek_mode="exact")
        except (RuntimeError, ValueError) as e:
            raise DecodeError(path, f"not a video that torchcodec can read ({_reason(e)})") from e
        check_count("torchcodec", path, found=len(self._reader), facts=facts)

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        check_indices(self._path, indices, self.num_frames)
        try:
            found = self._reader.get_frames_at(indices)
        except (RuntimeError, IndexError) as e:
            raise DecodeError(
                self._path, f"torchcodec cannot decode {len(indices)} of its frames ({_reason(e)})"
            ) from e
        late = np.abs(found.pts_seconds.numpy() - self._timestamps[indices]).max()
        if late > SAME_TIME_SECONDS:
            raise DecodeError(
                self._path, f"torchcodec returned frames {late:.3f} s from the requested ones; use 'pyav'"
            )
        return found.data

    def close(self) -> None:
        self._reader = None


def _video_decoder() -> Any:
    """Return the reader class of torchcodec; raise an `ImportError` with the true cause if it cannot work."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder

        # it imports without ffmpeg, and gives the reason when it is used
        if torchcodec.ffmpeg_major_version is None:
            VideoDecoder("")
    except ModuleNotFoundError as e:
        raise MissingPackageError(f"decoder 'torchcodec': {e}. {ADVICE}") from e
    except (ImportError, RuntimeError, OSError) as e:
        raise MissingPackageError(f"decoder 'torchcodec' does not load: {_cause(e)}. {ADVICE}") from e
    return VideoDecoder


def _cause(error: Exception) -> str:
    """Return the messages of the library loader; torchcodec has one in a traceback per ffmpeg version."""
    messages = re.findall(r"^(?:OSError|ImportError): (.+)$", str(error), flags=re.MULTILINE)
    return "; ".join(dict.fromkeys(messages)) or first_line(error)


def _reason(error: BaseException) -> str:
    return PLACE.sub("", first_line(error))
