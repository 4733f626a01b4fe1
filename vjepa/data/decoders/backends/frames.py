"""Decoder of images: a folder of them as one video, an animation, or one image as a video of one frame."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float64, UInt8
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vjepa.data.decoders.base import MAX_PIXELS, Decoder, check_indices, check_size
from vjepa.data.suffixes import IMAGE_SUFFIXES
from vjepa.errors import DecodeError

DEFAULT_FPS = 30.0  # of a folder without a rate in its name
ANIMATED = (".png", ".apng", ".webp", ".avif")
NAMED_FPS = re.compile(r"@(\d+(?:\.\d+)?)fps$")


class FramesDecoder(Decoder):
    """A decoder of images with Pillow: rotated by their EXIF data, in RGB with 8 bits per channel.

    The frames of a folder are its images in natural order ("frame_2.jpg" before "frame_10.jpg"). The rate is 30
    frames per second, or the one at the end of the folder's name: "walk@12.5fps". An animated PNG, WebP or AVIF has its
    own times; its frames are complete pictures, composed as Pillow does.
    """

    def __init__(self, path: str) -> None:
        self._path, place = path, Path(path)
        try:
            images = _images_of(place)
        except OSError as e:
            raise DecodeError(place, f"cannot be opened ({e.strerror})") from e
        named = NAMED_FPS.search(place.name)
        fps = float(named.group(1)) if named else DEFAULT_FPS
        if not fps:
            raise DecodeError(
                place, "its name says 0 frames per second; end it with the true rate, as in @12.5fps"
            )
        shown_at = np.arange(len(images)) / fps if place.is_dir() else _animation(place)
        self._is_animation = not place.is_dir() and len(shown_at) > 1
        self._images = images * len(shown_at) if self._is_animation else images
        self._timestamps = shown_at

    @property
    def timestamps(self) -> Float64[ndarray, "n"]:
        return self._timestamps

    def close(self) -> None:
        pass  # an image file is open only while it is read

    def frames_at(self, indices: list[int]) -> UInt8[Tensor, "t c h w"]:
        check_indices(self._path, indices, self.num_frames)
        decoded = {index: self._decode(index) for index in sorted(set(indices))}
        first = decoded[indices[0]].shape
        for index, pixels in decoded.items():
            if pixels.shape != first:
                raise DecodeError(
                    self._path,
                    f"changes size: {self._images[index].name} is {pixels.shape[1]} x {pixels.shape[0]}, "
                    f"{self._images[indices[0]].name} is {first[1]} x {first[0]}",
                )
        frames = np.stack([decoded[index] for index in indices])
        return rearrange(torch.from_numpy(frames), "t h w c -> t c h w")

    def _decode(self, index: int) -> UInt8[ndarray, "h w 3"]:
        image = self._images[index]
        with _opened(self._path, image) as opened:
            if self._is_animation:
                opened.seek(index + _first_frame(opened))
            return np.array(_to_rgb(ImageOps.exif_transpose(opened)))


@contextmanager
def _opened(path: str | Path, image: Path) -> Iterator[Image.Image]:
    """Open an image of a video; name the image in each error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            opened = Image.open(image)
        with opened:
            check_size(path, *opened.size)
            yield opened
    except UnidentifiedImageError as e:
        raise DecodeError(path, f"{image.name} is not an image that Pillow can read") from e
    except Image.DecompressionBombError as e:
        raise DecodeError(path, f"{image.name} has more than {MAX_PIXELS:,} pixels") from e
    except (OSError, SyntaxError, ValueError, EOFError) as e:
        raise DecodeError(path, f"{image.name} is truncated or broken ({e})") from e


def _first_frame(opened: Image.Image) -> int:
    """Return the number of an animation's first frame: a PNG may begin with a picture for viewers without motion."""
    return int(getattr(opened, "default_image", False))


def _animation(image: Path) -> Float64[ndarray, "n"]:
    """Return when each frame of an animated PNG, WebP or AVIF is shown, in seconds; one time for a plain image.

    The pages of a TIFF are not an animation. A frame that lasts 0 ms is shown for 1 / 30 s, for times have to rise.
    """
    if image.suffix.lower() not in ANIMATED:
        return np.zeros(1)
    with _opened(image, image) as opened:
        first, num_frames = _first_frame(opened), getattr(opened, "n_frames", 1)
        if num_frames - first < 2:
            return np.zeros(1)
        lasts = []
        for frame in range(first, num_frames - 1):
            opened.seek(frame)
            opened.load()  # WebP and AVIF know the duration of a frame once it is read
            lasts.append(opened.info.get("duration", 0) / 1000 or 1 / DEFAULT_FPS)
    return np.cumsum([0.0, *lasts])


def is_frames(path: str | Path) -> bool:
    """Return whether this backend reads `path`: a folder, or a file with the suffix of an image."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES or Path(path).is_dir()


def _images_of(place: Path) -> list[Path]:
    """Return the images of a folder in natural order, or the one image itself."""
    if not place.is_dir():
        if place.stat().st_size == 0:
            raise DecodeError(place, "the file is empty (0 bytes)")
        if place.suffix.lower() not in IMAGE_SUFFIXES:
            raise DecodeError(
                place, f"neither a folder nor an image; images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        return [place]
    # hidden files are not frames: file managers write thumbnails
    images = [
        file
        for file in place.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    if not images:
        raise DecodeError(
            place, f"a folder without images; images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return sorted(images, key=lambda file: (_natural(file.name), file.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key in which 2 comes before 10: "a10b" -> a, 10, b."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB like the reference loaders: drop transparency; keep the upper 8 bits of 16-bit grey."""
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255 instead of scaling them
        grey = (np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if "transparency" in image.info:  # of a palette, which Pillow converts to RGB with a warning
        image = image.convert("RGBA")
    return image.convert("RGB")
