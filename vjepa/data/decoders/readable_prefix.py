"""Opening of videos whole or, if their end is missing, up to the damage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from vjepa.data.decoders.base import Decoder, Opener
from vjepa.data.decoders.limited import DEFAULT_SECONDS, opener
from vjepa.data.decoders.opening import open_video
from vjepa.errors import DecodeError
from vjepa.types import ClipFailure

TRUNCATED = "vjepa.data.decoders.truncated.TruncatedDecoder"
# decoders whose frames are equal to those of TRUNCATED, to the bit
SAME_FRAMES = ("auto", "pyav", "torchcodec", "decord")


@dataclass(frozen=True)
class OpenVideo:
    """An open video, the opener that can open it again, and the failure to report if its end is missing."""

    video: Decoder
    open_again: Opener
    failure: ClipFailure | None = None


class ReadablePrefix:
    """An opener of videos that opens a truncated video up to the damage.

    With your own decoder, or without `parts`, a video is opened whole or refused.
    """

    def __init__(self, decoder: str, *, parts: bool = True) -> None:
        self._whole = opener(decoder, DEFAULT_SECONDS)
        self._truncated = opener(TRUNCATED, DEFAULT_SECONDS) if parts and decoder in SAME_FRAMES else None

    @contextmanager
    def open(self, path: str) -> Iterator[OpenVideo]:
        """Open a video for the length of a `with` block.

        Raises:
            DecodeError: If nothing of it can be read.
        """
        with ExitStack() as stack:
            try:
                found = OpenVideo(stack.enter_context(open_video(self._whole, path)), self._whole)
            except DecodeError as error:
                if self._truncated is None:
                    raise
                try:
                    video = stack.enter_context(open_video(self._truncated, path))
                except DecodeError:
                    raise error from None
                shown = video.timestamps
                stop = float(shown[-1]) + (float(np.median(np.diff(shown))) if len(shown) > 1 else 0.0)
                failure = ClipFailure(path, f"{error.reason}; nothing is read from {stop:.2f} s on")
                found = OpenVideo(video, self._truncated, failure)
            yield found
