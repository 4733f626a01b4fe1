"""The interface of decoder backends: frames of one video file by index, and the time of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from vjepa.errors import DecodeError, SettingError

MAX_PIXELS = 2**26  # of one frame: 8192 x 8192; a header may promise billions

Opened = TypeVar("Opened", bound="Decoder")

BUILT_IN = {
    "auto": "vjepa.data.decoders.auto.AutoDecoder",
    "pyav": "vjepa.data.decoders.backends.pyav.PyAVDecoder",
    "torchcodec": "vjepa.data.decoders.backends.torchcodec.TorchCodecDecoder",
    "decord": "vjepa.data.decoders.backends.decord.DecordDecoder",
    "frames": "vjepa.data.decoders.backends.frames.FramesDecoder",
}


class Decoder(ABC):
    """One open video file, used as a context manager; returns RGB frames by index, in any order.

    >>> with decoder_class("pyav").open("clip.mp4") as video:  # doctest: +SKIP
    ...     video.frames_at([0, 2, 2]).shape
    torch.Size([3, 3, 64, 64])
    """

    @classmethod
    def open(cls, path: str | Path) -> Decoder:
        """Open `path`; raise `DecodeError` if it is not a readable video. By default the constructor takes the path."""
        return cls(str(path))  # type: ignore[call-arg]

    @property
    @abstractmethod
    def timestamps(self) -> Float64[ndarray, "n"]:
        """The time of each frame in seconds, ascending."""

    @abstractmethod
    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        """Return RGB frames by index, in the given order; raise `DecodeError` if one cannot be decoded."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    @property
    def num_frames(self) -> int:
        """The number of frames in the file, whatever its header says."""
        return len(self.timestamps)

    @property
    def fps(self) -> float:
        """The average frames per second; 0 for a video of one frame."""
        shown = self.timestamps
        return float((len(shown) - 1) / (shown[-1] - shown[0])) if len(shown) > 1 else 0.0

    @property
    def note(self) -> str:
        """What is unusual about the file and how it is read; "" for an ordinary file."""
        return ""

    def through(self, at_once: int, *, thorough: bool = False) -> Iterator[UInt8[Tensor, "t c h w"]]:
        """Yield all frames in order, `at_once` in a piece.

        A backend that knows how to decode a file from its start does so, and compares some frames read by index, or
        all if `thorough`, with these; it raises `DecodeError` if they differ.
        """
        for start in range(0, self.num_frames, at_once):
            yield self.frames_at(list(range(start, min(start + at_once, self.num_frames))))

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@runtime_checkable
class Opener(Protocol):
    """A backend's class, or another object that opens videos."""

    def open(self, path: str | Path) -> Decoder:
        """Open `path`; raise `DecodeError` if it is not a readable video."""


def decoder_class(name: str) -> type[Decoder]:
    """Return the backend of that name.

    Args:
        name: "auto" (the fastest that works, docs/howto/data_decoders.md), "pyav", "torchcodec", "decord",
            "frames" (a folder of images, or one image), or the class path of your own `Decoder`, such as
            "my_code.MyDecoder".

    Raises:
        ValueError: If there is no such class, or it is not a `Decoder`.

    >>> decoder_class("pyav").__name__
    'PyAVDecoder'
    """
    module_name, _, class_name = BUILT_IN.get(name, name).rpartition(".")
    advice = f"Use one of {', '.join(BUILT_IN)}, or the class path of your own vjepa.data.Decoder."
    if not module_name:
        raise SettingError(f"decoder {name!r} is not known. {advice}")
    try:
        found = getattr(import_module(module_name), class_name)
    except ModuleNotFoundError as e:
        raise SettingError(f"decoder {name!r}: {e}. {advice}") from e
    except AttributeError as e:
        raise SettingError(f"decoder {name!r}: {module_name} has no {class_name}. {advice}") from e
    if not (isinstance(found, type) and issubclass(found, Decoder)):
        raise SettingError(f"decoder {name!r} is not a subclass of vjepa.data.Decoder. {advice}")
    return found


def check_indices(path: str, indices: list[int], num_frames: int) -> None:
    """Raise `IndexError` for a frame index outside the video."""
    if not indices or min(indices) < 0 or max(indices) >= num_frames:
        raise IndexError(
            f"{path}: frames {indices} requested, it has 0 to {num_frames - 1}. "
            "Request at least one, in that range."
        )


def check_size(path: str | Path, width: int, height: int) -> None:
    """Raise `DecodeError` if a frame has more pixels than MAX_PIXELS, before it is decoded."""
    if width * height > MAX_PIXELS:
        raise DecodeError(path, f"frames of {width} x {height} pixels; the limit is {MAX_PIXELS:,} per frame")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or ["no reason given"])[0]
