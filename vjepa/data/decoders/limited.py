"""A wall-clock limit that ends a hung decode: the decoder runs in a child process, which can be killed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.data.decoders.base import Decoder, Opener
from vjepa.data.decoders.child import Child
from vjepa.data.decoders.indexed import backend
from vjepa.errors import DecodeError, SettingError

# the child is forked, as DataLoader's workers are; other systems cannot safely fork a process with threads
POSSIBLE = sys.platform == "linux"
DEFAULT_SECONDS = 60.0 if POSSIBLE else 0.0
MAX_OPENS = 2000  # then a new child replaces it, so that leaks of a decoding library do not add up


class LimitedProcess:
    """A child process that decodes for this one; it starts at the first request, and again after it was killed.

    Only one thread at a time may use it. The child ends with the thread that started it.

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
        self._child: Child | None = None
        self._num_opens = 0

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is a child."""
        return self._child.pid if self._child is not None and self._child.is_mine else None

    def open(self, path: str | Path) -> LimitedDecoder:
        """Open `path` in the child; raise `DecodeError` as the backend does, or if it takes too long."""
        return LimitedDecoder(str(path), self)

    def close(self) -> None:
        """End the child."""
        if self._child is not None and self._child.is_mine:
            self._child.kill()
        self._child = None

    def child(self) -> Child:
        """Return the running child, or a new one if there is none or it has opened many files."""
        if self._child is not None and not self._child.is_mine:
            self._child = None  # this process was forked since; the child belongs to its parent
        enough = self._num_opens >= MAX_OPENS
        if self._child is not None and (self._child.is_gone or (enough and self._child.num_open == 0)):
            self.close()
        if self._child is None:
            self._child, self._num_opens = Child(self._backend), 0
        self._num_opens += 1
        return self._child

    def ask(self, path: str, child: Child, *request: Any) -> Any:
        """Return the answer to `request`, see `Child.serve`, of the child that opened `path`.

        Raises the error that the backend raised, or `DecodeError` if no answer comes.
        """
        if child is not self._child or not child.is_mine:
            raise DecodeError(
                path, "its process was ended, as another video did not decode in time. Open it again"
            )
        try:
            child.pipe.send(request)
            answered = child.pipe.poll(self.seconds)
            answer = child.pipe.recv() if answered else None
        except (EOFError, ConnectionError) as e:
            ended = child.kill()
            self._child = None
            raise DecodeError(path, f"the decoder crashed ({ended})") from e
        except BaseException:  # Ctrl-C: a late answer would be mistaken for the answer to the next request
            self.close()
            raise
        if not answered:
            self.close()
            raise DecodeError(path, f"no frame after {self.seconds:g} s: decoding hung and was ended")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_child": None, "_num_opens": 0}  # another process starts its own child


class LimitedDecoder(Decoder):
    """A video that is open in a `LimitedProcess`."""

    def __init__(self, path: str, process: LimitedProcess) -> None:
        self._path = path
        self._process = process
        self._child = process.child()
        self._number, self._timestamps = process.ask(path, self._child, "open", path)
        self._child.num_open += 1

    @classmethod
    def open(cls, path: str | Path) -> LimitedDecoder:
        """Open `path` in a process for this video alone, with the decoder `auto`."""
        return cls(str(path), LimitedProcess(decoder="auto", seconds=DEFAULT_SECONDS))

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        layout = self._process.ask(self._path, self._child, "frames", self._number, list(indices))
        return self._child.frames.take(*layout)

    def close(self) -> None:
        if self._number >= 0 and self._child.pid == self._process.pid:
            self._child.num_open -= 1
            self._child.pipe.send(("close", self._number))
        self._number = -1


def opener(decoder: str, timeout_seconds: float, *, index: str | None = None) -> Opener:
    """Return the opener of videos for a backend: the class itself, or a child process if there is a time limit.

    The arguments are those of `LimitedProcess`; 0 seconds set no limit.

    >>> opener("pyav", 0.0).__name__
    'PyAVDecoder'
    """
    if not timeout_seconds:
        return backend(decoder, index)
    return LimitedProcess(decoder=decoder, seconds=timeout_seconds, index=index)
