"""The examination of one file: decoded to its end, measured, and hashed by its frames."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Float64
from PIL import Image

from vjepa.data.decoders.base import Decoder, decoder_class
from vjepa.data.decoders.opening import open_video
from vjepa.data.manifests.identity import state_of
from vjepa.data.sampling import ROUNDING_SECONDS
from vjepa.errors import DecodeError
from vjepa.names import redacted

MAX_BYTES = 128_000_000  # of decoded frames in memory, for long videos
UNEVEN = 0.1  # a gap that differs from the median by more than this share belongs to another frame rate
THUMBNAIL_PIXELS = 128

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class FileJob:
    """A file to examine, and its parts in the manifest, (start, end) in seconds."""

    path: str
    parts: tuple[Interval, ...]
    decoder: str
    thorough: bool = False

    def key(self) -> str:
        """Return a name of the file in its present state, which changes with the file."""
        return json.dumps(
            [redacted(self.path), *state_of(self.path), self.decoder, self.parts, self.thorough]
        )


@dataclass(frozen=True)
class PartRecord:
    """A part of a file: its frames, the seconds from the first to the last, and the median seconds between two."""

    num_frames: int
    seconds: float
    gap: float


@dataclass(frozen=True)
class FileRecord:
    """The content of a file, or the `reason` why it cannot be read.

    `content` is a hash of all frames; `uneven` counts the gaps between frames that differ from the median `gap`; `note`
    tells what is unusual about the file.
    """

    reason: str = ""
    num_frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    size: tuple[int, int] = (0, 0)
    content: str = ""
    gap: float = 0.0
    longest_gap: float = 0.0
    uneven: int = 0
    note: str = ""
    parts: tuple[PartRecord, ...] = ()

    @classmethod
    def read(cls, found: dict[str, Any]) -> FileRecord:
        """Return the record from the result of `examine`, which has been JSON."""
        parts = tuple(PartRecord(*part) for part in found.get("parts", ()))
        return cls(**{**found, "parts": parts, "size": tuple(found.get("size", (0, 0)))})


def examine(job: FileJob) -> dict[str, Any]:
    """Decode a file to its end; return the fields of its `FileRecord` as plain JSON."""
    try:
        with open_video(decoder_class(job.decoder), job.path) as video:
            size, content = _decode_all(video, thorough=job.thorough)
            shown, note = video.timestamps, video.note
            fps = video.fps
    except DecodeError as e:
        return {"reason": e.reason}
    gaps = np.diff(shown)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    uneven = np.abs(gaps - usual) > max(UNEVEN * usual, 2 * ROUNDING_SECONDS)
    return {
        "num_frames": len(shown),
        "seconds": len(shown) / fps if fps else 0.0,
        "fps": fps,
        "size": size,
        "content": content,
        "gap": usual,
        "longest_gap": float(gaps.max(initial=0.0)),
        "uneven": int(uneven.sum()),
        "note": note,
        "parts": [_part(shown, *part) for part in job.parts],
    }


def _part(shown: Float64[np.ndarray, "n"], start: float | None, end: float | None) -> list[int | float]:
    """Return the fields of a `PartRecord`, with the bounds of `ClipSampler`."""
    first = 0 if start is None else int(np.searchsorted(shown, start - ROUNDING_SECONDS))
    stop = len(shown) if end is None else int(np.searchsorted(shown, end - ROUNDING_SECONDS))
    part = shown[first:stop]
    if len(part) < 2:
        return [len(part), 0.0, 0.0]
    return [len(part), float(part[-1] - part[0]), float(np.median(np.diff(part)))]


def _decode_all(video: Decoder, *, thorough: bool) -> tuple[tuple[int, int], str]:
    """Decode every frame; return width and height, and a hash of every second row and column of the frames."""
    _, channels, height, width = video.frames_at([0]).shape
    digest = hashlib.sha256(f"{height} {width}".encode())
    at_once = max(MAX_BYTES // (channels * height * width), 16)
    for frames in video.through(at_once, thorough=thorough):
        pixels = rearrange(frames, "t c h w -> t h w c")[:, ::2, ::2]
        digest.update(pixels.contiguous().numpy().tobytes())
    return (width, height), digest.hexdigest()[:32]


def thumbnail(job: FileJob) -> str:
    """Return the middle frame as a small JPEG in base64, or "" if it cannot be decoded."""
    try:
        with open_video(decoder_class(job.decoder), job.path) as video:
            frame = video.frames_at([video.num_frames // 2])
    except DecodeError:
        return ""
    image = Image.fromarray(rearrange(frame, "1 c h w -> h w c").numpy())
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return base64.b64encode(file.getvalue()).decode()
