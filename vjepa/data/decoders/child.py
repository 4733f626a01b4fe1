"""The forked process of a limited decoder: requests come over a pipe, frames return through shared memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
import weakref
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float64, UInt8
from torch import Tensor

from vjepa.data.decoders.base import Decoder, Opener
from vjepa.data.decoders.contract import CheckedDecoder

PR_SET_PDEATHSIG = 1  # linux/prctl.h
REAP_SECONDS = 5.0  # a killed process ends in a millisecond, unless the kernel waits for a dead disk

# a child that another thread forks at the same time would keep a copy of this one's end of the pipe
_FORKING = threading.Lock()

Layout = tuple[tuple[int, ...], bool]


class SharedFrames:
    """Memory shared by parent and child, as large as the largest clip so far."""

    def __init__(self) -> None:
        self._file = os.memfd_create("vjepa-frames")
        self._memory: mmap.mmap | None = None
        weakref.finalize(self, os.close, self._file)

    def put(self, frames: UInt8[Tensor, "t c h w"]) -> Layout:
        """Write frames in their memory order; return the shape, and whether channels come last."""
        channels_last = rearrange(frames, "t c h w -> t h w c")
        last = channels_last.is_contiguous()
        pixels = channels_last.numpy() if last else frames.contiguous().numpy()
        if pixels.nbytes > len(self._memory or b""):
            os.ftruncate(self._file, pixels.nbytes)
        np.copyto(self._view(pixels.shape), pixels)
        return pixels.shape, last

    def take(self, shape: tuple[int, ...], channels_last: bool) -> UInt8[Tensor, "t c h w"]:
        """Return a copy of the frames that were written last."""
        frames = torch.from_numpy(self._view(shape).copy())
        return rearrange(frames, "t h w c -> t c h w") if channels_last else frames

    def _view(self, shape: tuple[int, ...]) -> UInt8[np.ndarray, "a b c d"]:
        size = int(np.prod(shape))
        if self._memory is None or len(self._memory) < size:
            self._memory = mmap.mmap(self._file, size)
        return np.frombuffer(self._memory, np.uint8, count=size).reshape(shape)


class LostChildError(Exception):
    """The end of a child before it answered; the message says how it ended."""


class Child:
    """A forked process that decodes with `backend`.

    It ends with the thread that started it, however that ends, and ignores Ctrl-C. Several threads may use it: their
    requests wait for each other.
    """

    def __init__(self, backend: Opener) -> None:
        self.frames = SharedFrames()
        self.num_open = 0  # videos
        self.num_opens = 0  # so far
        self._lock = threading.RLock()
        self._parent = os.getpid()
        with _FORKING:
            self.pipe, theirs = Pipe()
            with warnings.catch_warnings():
                # Python 3.12 warns of threads: their locks stay locked in the child, which uses none of them
                warnings.simplefilter("ignore", DeprecationWarning)
                self.pid = os.fork()
            if self.pid == 0:
                _run(theirs, self, backend)
            theirs.close()
        self._end = weakref.finalize(self, _end, self.pid, self._parent)

    @property
    def is_ended(self) -> bool:
        """Whether it was ended here, or belongs to a process that this one was forked from."""
        return self.pipe.closed or self._parent != os.getpid()

    @property
    def is_gone(self) -> bool:
        """Whether it has ended by itself.

        Ask only between requests: then the pipe is readable only if the child ended.
        """
        with self._lock:
            return self.pipe.closed or self.pipe.poll(0)

    def open_video(self, path: str, seconds: float) -> tuple[int, Float64[np.ndarray, "n"]]:
        """Open a video; return its number and timestamps. For errors, see `_ask`."""
        with self._lock:
            number, timestamps = self._ask(seconds, "open", path)
            self.num_open += 1
        return number, timestamps

    def frames_of(self, number: int, indices: list[int], seconds: float) -> UInt8[Tensor, "t c h w"]:
        """Return a copy of frames of an open video. For errors, see `_ask`."""
        with self._lock:  # the answer to the next request replaces the frames
            return self.frames.take(*self._ask(seconds, "frames", number, indices))

    def close_video(self, number: int) -> None:
        """Close a video; do nothing if the child has ended."""
        with self._lock:
            if self.is_ended:
                return
            self.num_open -= 1
            try:
                self.pipe.send(("close", number))
            except ConnectionError:
                self.kill()

    def kill(self) -> str:
        """End it now, and return how it ended."""
        self.pipe.close()
        return self._end() or "it was ended before"

    def _ask(self, seconds: float, *request: Any) -> Any:
        """Return the answer to a request, see `serve`.

        Raises the error that the backend raised, or `LostChildError` if no answer comes within `seconds`.
        """
        if self.is_ended:
            raise LostChildError("its process was ended")
        try:
            self.pipe.send(request)
            answered = self.pipe.poll(seconds)
            answer = self.pipe.recv() if answered else None
        except (EOFError, ConnectionError) as e:
            raise LostChildError(f"the decoder crashed ({self.kill()})") from e
        except BaseException:  # Ctrl-C: a late answer would be mistaken for the answer to the next request
            self.kill()
            raise
        if not answered:
            self.kill()
            raise LostChildError(f"no frame after {seconds:g} s: decoding hung and was ended")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def serve(self, pipe: Connection, backend: Opener) -> None:
        """Answer requests until the parent closes the pipe; runs in the child."""
        videos: dict[int, Decoder] = {}
        opened = 0
        while True:
            try:
                what, *arguments = pipe.recv()
            except EOFError:
                return
            if what == "close":
                videos.pop(arguments[0]).close()
                continue  # the parent waits for no answer
            try:
                answer: Any
                if what == "open":
                    opened += 1
                    videos[opened] = CheckedDecoder(arguments[0], backend.open(arguments[0]))
                    answer = opened, videos[opened].timestamps
                else:
                    answer = self.frames.put(videos[arguments[0]].frames_at(arguments[1]))
            except Exception as e:  # noqa: BLE001  the parent raises it
                answer = _portable(e)
            pipe.send(answer)


def _portable(error: Exception) -> Exception:
    """Return the error itself or, if its class does not pickle, a RuntimeError with its text."""
    try:
        return pickle.loads(pickle.dumps(error))
    except (pickle.PicklingError, AttributeError, TypeError, ValueError):
        return RuntimeError(f"{type(error).__name__}: {error}")


def _run(pipe: Connection, child: Child, backend: Opener) -> NoReturn:
    """Run the child; never return to the code that was forked."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number, action in _SIGNALS.items():
            signal.signal(number, action)
        child.pipe.close()  # so that the end of the parent is the end of the pipe
        torch.set_num_threads(1)  # fork does not copy the parent's thread pool
        if os.getppid() == child._parent:
            child.serve(pipe, backend)
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


_SIGNALS: dict[signal.Signals, Literal[signal.Handlers.SIG_IGN, signal.Handlers.SIG_DFL]] = {
    signal.SIGINT: signal.SIG_IGN,  # the parent ends the child when it ends
    signal.SIGTERM: signal.SIG_DFL,  # without the handlers of a training run
    signal.SIGCHLD: signal.SIG_DFL,
}


def _end(pid: int, parent: int) -> str | None:
    """Kill and reap the child, if this process is its parent; return how it ended."""
    if os.getpid() != parent:
        return None
    give_up = time.monotonic() + REAP_SECONDS
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)  # a crashed child has its own status
        if not ended:
            os.kill(pid, signal.SIGKILL)
        while not ended and time.monotonic() < give_up:
            ended, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0 if ended else 0.001)
    except (ChildProcessError, ProcessLookupError):
        return None  # other code has reaped it
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
