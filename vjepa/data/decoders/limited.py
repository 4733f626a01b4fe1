"""A wall-clock limit that ends a hung decode: the decoder runs in a child process, which can be killed."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.base import Decoder, Opener
from vjepa.data.decoders.child import Child, LostChildError
from vjepa.data.decoders.indexed import backend
from vjepa.errors import DecodeError, SettingError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# the child is forked, as DataLoader's workers are; other systems cannot safely fork a process with threads
POSSIBLE = sys.platform == "linux"
DEFAULT_SECONDS = 60.0 if POSSIBLE else 0.0
MAX_OPENS = 2000  # then a new child replaces it, so that leaks of a decoding library do not add up


class LimitedOpener:
    """Child processes that decode for this one, one per thread that opens videos.

    A child starts at the first request of its thread, and again after it was killed. It ends with the thread that
    started it.

    Args:
        decoder: The backend that it uses, as for `decoder_class`.
        seconds: Time limit to open a video, and to decode the frames of one request.
        index: Packet index of the videos.
    """

    def __init__(self, *, decoder: str, seconds: float, index: str | None = None) -> None:
        if seconds <= 0 or not POSSIBLE:
            raise SettingError(
                f"timeout_seconds {seconds:g} on {sys.platform}: a limit is above 0 and needs Linux. "
                "Set it to 0 for no limit."
            )
        self.decoder = decoder
        self.seconds = seconds
        self._backend = backend(decoder, index)  # an unknown name is refused here, not in the child
        self._own = _OfThisThread()

    @property
    def pid(self) -> int | None:
        """The process id of this thread's child, while there is one."""
        child = self._own.child
        return child.pid if child is not None and not child.is_ended else None

    def open(self, path: str | Path) -> LimitedDecoder:
        """Open `path` in the child; raise `DecodeError` as the backend does, or if it takes too long."""
        return LimitedDecoder(str(path), self)

    def close(self) -> None:
        """End the child of this thread."""
        if self._own.child is not None and not self._own.child.is_ended:
            self._own.child.kill()
        self._own.child = None

    def child(self) -> Child:
        """Return this thread's running child; start a new one if it has ended or has opened many files."""
        child = self._own.child
        if child is not None and child.is_ended:
            child = None
        if child is not None and (child.is_gone or (child.num_opens >= MAX_OPENS and child.num_open == 0)):
            child.kill()
            child = None
        if child is None:
            child = Child(self._backend)
        child.num_opens += 1
        self._own.child = child
        return child

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._own = _OfThisThread()  # another process starts its own children


class _OfThisThread(threading.local):
    """The child that the current thread started."""

    child: Child | None = None


class LimitedDecoder(Decoder):
    """A video that is open in the child of the thread that opened it; any thread may read it.

    If the child is killed, is stopped or hangs, the video is opened again in a new one, once per request.
    """

    def __init__(self, path: str, process: LimitedOpener) -> None:
        self._path = path
        self._process = process
        self._child, self._number, self._timestamps = self._twice(self._opened)

    @classmethod
    def open(cls, path: str | Path) -> LimitedDecoder:
        """Open `path` in a process for this video alone, with the decoder `auto`."""
        return cls(str(path), LimitedOpener(decoder="auto", seconds=DEFAULT_SECONDS))

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        return self._twice(lambda: self._frames(list(indices)))

    def close(self) -> None:
        if self._number >= 0:
            self._child.close_video(self._number)
        self._number = -1

    def _opened(self) -> tuple[Child, int, Float64[ndarray, "n"]]:
        child = self._process.child()
        return child, *child.open_video(self._path, self._process.seconds)

    def _frames(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        if self._child.is_ended:
            self._child, self._number, _ = self._opened()
        return self._child.frames_of(self._number, indices, self._process.seconds)

    def _twice(self, work: Callable[[], Answer]) -> Answer:
        """Return the result of `work`; if the child is lost, repeat it once in a new child.

        Raises the error that the backend raised, or `DecodeError` if the second child is lost, too.
        """
        try:
            return work()
        except LostChildError as first:
            log.info("%s: %s; one more try in a new process", self._path, first)
        try:
            return work()
        except LostChildError as second:
            raise DecodeError(self._path, str(second)) from second


def opener(decoder: str, timeout_seconds: float, *, index: str | None = None) -> Opener:
    """Return the opener of a backend, or with a time limit a child process that uses it.

    The arguments are those of `LimitedOpener`; 0 seconds set no limit.

    >>> opener("pyav", 0.0).__name__
    'PyAVDecoder'
    """
    if not timeout_seconds:
        return backend(decoder, index)
    return LimitedOpener(decoder=decoder, seconds=timeout_seconds, index=index)
