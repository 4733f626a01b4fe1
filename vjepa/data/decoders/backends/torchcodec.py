"""Decoding with torchcodec, on ffmpeg's libraries of the system."""

from __future__ import annotations

import re
from pathlib import Path
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
    "does not bring along; or use decoder 'pyav', which reads the same frames and needs neither."
)
# what torchcodec writes before its reason: "decode_av_frame, /src/torchcodec/_core/SingleStreamDecoder.cpp:1493, "
PLACE = re.compile(r"^\w+, \S+:\d+, ")
SAME_TIME_SECONDS = 1e-4  # a frame this far from its packet's time is another frame


class TorchCodecDecoder(Decoder):
    """Reads with torchcodec. Frames are numbered by the packets in the file, as for every backend.

    Files of more than 8 bits a channel, whose colours it interpolates otherwise, and MPEG-4 part 2 are refused.
    """

    def __init__(self, *, path: str, reader: Any, timestamps: Float64[ndarray, "n"]) -> None:
        self._path = path
        self._reader = reader
        self._timestamps = timestamps

    @classmethod
    def open(cls, path: str | Path) -> TorchCodecDecoder:
        reader_class = _video_decoder()
        path = str(path)
        facts = facts_for("torchcodec", path)
        try:
            reader = reader_class(path, num_ffmpeg_threads=1, seek_mode="exact")
        except (RuntimeError, ValueError) as e:
            raise DecodeError(path, f"no video that torchcodec can read ({_reason(e)})") from e
        check_count("torchcodec", path, found=len(reader), facts=facts)
        return cls(path=path, reader=reader, timestamps=facts.timestamps)

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    def close(self) -> None:
        self._reader = None

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
                self._path, f"torchcodec gave frames {late:.3f} s from those asked for; use 'pyav'"
            )
        return found.data


def _video_decoder() -> Any:
    """The reader class of torchcodec; an `ImportError` that names the true cause where it cannot work."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder

        if torchcodec.ffmpeg_major_version is None:  # imports without ffmpeg, and says why when it is used
            VideoDecoder("")
    except ModuleNotFoundError as e:
        raise MissingPackageError(f"decoder 'torchcodec': {e}. {ADVICE}") from e
    except (ImportError, RuntimeError, OSError) as e:
        raise MissingPackageError(f"decoder 'torchcodec' does not load: {_cause(e)}. {ADVICE}") from e
    return VideoDecoder


def _cause(error: Exception) -> str:
    """What the loader of shared libraries said; torchcodec lists it in a traceback for each ffmpeg version."""
    told = re.findall(r"^(?:OSError|ImportError): (.+)$", str(error), flags=re.MULTILINE)
    return "; ".join(dict.fromkeys(told)) or first_line(error)


def _reason(error: BaseException) -> str:
    return PLACE.sub("", first_line(error))
