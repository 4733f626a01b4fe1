"""Videos opened whole or, where their end is missing, up to the damage."""

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

CUT_OFF = "vjepa.data.decoders.truncated.CutOffDecoder"
# decoders whose frames are those of CUT_OFF, to the bit
WHOLE_FILES = ("auto", "pyav", "torchcodec", "decord")


@dataclass(frozen=True)
class OpenVideo:
    """A video, what opens it again, and what is to be said of one that lacks its end."""

    video: Decoder
    open_again: Opener
    failure: ClipFailure | None = None


class UpToDamage:
    """Opens videos, and those that lack their end as far as they go.

    Args:
        decoder: What reads the videos; those of a decoder of yours are opened whole or not at all.
        parts: Whether anything but whole videos is wanted.
    """

    def __init__(self, decoder: str, *, parts: bool = True) -> None:
        self._whole = opener(decoder, DEFAULT_SECONDS)
        self._cut_off = opener(CUT_OFF, DEFAULT_SECONDS) if parts and decoder in WHOLE_FILES else None

    @contextmanager
    def open(self, path: str) -> Iterator[OpenVideo]:
        """The video, closed at the end.

        Raises:
            DecodeError: If nothing of it can be read.
        """
        with ExitStack() as stack:
            yield self._open(path, stack)

    def _open(self, path: str, stack: ExitStack) -> OpenVideo:
        try:
            return OpenVideo(stack.enter_context(open_video(self._whole, path)), self._whole)
        except DecodeError as error:
            if self._cut_off is None:
                raise
            try:
                video = stack.enter_context(open_video(self._cut_off, path))
            except DecodeError:
                raise error from None
            shown = video.timestamps
            stop = float(shown[-1]) + (float(np.median(np.diff(shown))) if len(shown) > 1 else 0.0)
            failure = ClipFailure(path, f"{error.reason}; nothing is read from {stop:.2f} s on")
            return OpenVideo(video, self._cut_off, failure)
