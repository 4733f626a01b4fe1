"""How a video becomes clips: the one value by which sampling and preprocessing settings travel."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

from vjepa.data import ClipSampler, EvalTransform, SegmentSampler, ViewsTransform
from vjepa.data.sampling import FrameSampler, time_indices, usable_part
from vjepa.data.transforms.video import IMAGENET_MEAN, IMAGENET_STD, ClipTransform
from vjepa.features.errors import FeaturesError
from vjepa.features.windows import Windows
from vjepa.models import VideoEncoder
from vjepa.models.config import height_and_width
from vjepa.types import Clip, PixelScale

log = logging.getLogger(__name__)

MAX_FRAMES, MAX_SIDE = 65_536, 16_384  # of all clips of a video, and of a side in pixels
MOST_LAYERS = 1000  # of an encoder
FLAT = ("num_frames", "fps", "frame_step", "segments", "views", "short_side")  # the same in a file


@dataclass(frozen=True)
class ClipSpec:
    """How a video becomes clips, and which blocks of the encoder are read.

    The clip lies in the middle of the video: `num_frames` frames at `fps` frames per second, every `frame_step`-th
    frame, or, where both are None, every frame. With `windows` there is a clip per window, of `num_frames` frames
    spread evenly over it. With `segments` there is a clip from the middle of each of so many equal parts of the video.
    With `views` each clip is cut into so many squares along the longer side. Segments and views follow each other in
    one long clip, in the order (view, segment, frame).

    `size` is the height and width of a clip in pixels. `short_side` is the number of pixels of a frame's short side
    before the central cut (None: the published 256 / 224 of `size`). `mean` and `std` are those of each colour
    channel, on a scale of 1. `layers` are the blocks of the encoder whose tokens are read, negative from the end (None:
    the last).

    >>> ClipSpec(num_frames=8, fps=4.0, segments=2, views=3).clips_per_video
    6
    """

    num_frames: int = 16
    fps: float | None = None
    frame_step: int | None = None
    windows: Windows | None = None
    segments: int = 1
    views: int = 1
    size: tuple[int, int] = (224, 224)
    short_side: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if min(self.segments, self.views) < 1:
            raise FeaturesError(f"segments {self.segments}, views {self.views}: give at least 1 of each.")
        if self.segments * self.views * self.num_frames > MAX_FRAMES or max(self.size) > MAX_SIDE:
            raise FeaturesError(
                f"{self.segments} segments and {self.views} views of {self.num_frames} frames of {self.size}: a clip "
                f"has at most {MAX_FRAMES} frames of {MAX_SIDE} pixels. Lower them."
            )
        if self.fps is not None and not math.isfinite(self.fps):
            raise FeaturesError(f"fps {self.fps}: give a number above 0, or omit it for every frame.")
        if self.layers is not None and len(set(self.layers)) < max(1, len(self.layers)):
            raise FeaturesError(f"layers {list(self.layers)}: name at least one block, and none twice.")
        if self.windows is not None and (self.segments, self.views) != (1, 1):
            raise FeaturesError(
                f"windows with {self.segments} segments and {self.views} views: a window is one clip. Omit either."
            )
        if self.windows is not None and (self.fps, self.frame_step) != (None, None):
            raise FeaturesError(
                f"windows of {self.windows.seconds:g} s and {self.num_frames} frames give the rate. "
                "Omit fps and frame_step."
            )
        self._clip_sampler("centre")  # checks the rest of the numbers
        self.transform()  # and the sizes

    @classmethod
    def for_encoder(
        cls,
        encoder: VideoEncoder,
        *,
        num_frames: int | None = None,
        fps: float | None = None,
        windows: Windows | None = None,
        **given: Any,
    ) -> ClipSpec:
        """Return the clips that this encoder was trained on if its checkpoint has them, else its native ones.

        Args:
            encoder: The encoder.
            num_frames: Frames of a clip (default: those of these clips). With `windows` and `fps`, these determine it.
            fps: Frames of a clip per second of video (default: those the encoder was trained on).
            windows: Where windows lie.
            **given: Other fields of the clips, such as `frame_step`, `segments`, `views` and `layers`.

        Raises:
            ValueError: If they contradict each other.
        """
        if windows is not None and fps is not None:
            if num_frames is not None:
                raise FeaturesError(
                    f"window {windows.seconds:g}, fps {fps:g} and num_frames {num_frames}: two of them give the third. "
                    "Omit fps or num_frames."
                )
            num_frames, fps = max(1, round(windows.seconds * fps)), None
        native = cls(num_frames=encoder.config["num_frames"], **_native_size(encoder.config["img_size"]))
        trained = native if encoder.trained_clips is None else cls.from_json(encoder.trained_clips)
        rate: dict[str, Any] = {"fps": trained.fps, "frame_step": trained.frame_step}
        if fps is not None or windows is not None or "frame_step" in given:
            rate = {"fps": fps, "frame_step": given.pop("frame_step", None)}
        rate["num_frames"] = trained.num_frames if num_frames is None else num_frames
        made = replace(trained, windows=windows, **rate, **given)
        if encoder.trained_clips is not None and made.timing != trained.timing:
            log.warning("clips of %s; the encoder was trained on %s", made.timing, trained.timing)
        tubelet = encoder.config["tubelet_size"]
        if made.num_frames > 1 and made.num_frames % tubelet:
            log.warning(
                "clips of %d frames, tubelets of %d: the last frames are not seen", made.num_frames, tubelet
            )
        return made

    @classmethod
    def of_training(cls, sampler: ClipSampler, transform: ClipTransform) -> ClipSpec | None:
        """Return the clips of a run from its sampler and its transform for validation; None if it trains on images."""
        if not isinstance(transform, EvalTransform):
            return None
        return cls(
            num_frames=sampler.num_frames,
            fps=sampler.fps,
            frame_step=sampler.frame_step,
            size=transform.size,
            short_side=transform.short_side,
            mean=transform.mean,
            std=transform.std,
        )

    @property
    def timing(self) -> str:
        """The length and rate of a clip in words: "8 frames at 4 fps"."""
        if self.windows is not None:
            return f"{self.num_frames} frames of {self.windows.seconds:g} s"
        if self.fps is not None:
            return f"{self.num_frames} frames at {self.fps:g} fps"
        step = self.frame_step or 1
        return f"{self.num_frames} frames, " + ("every frame" if step == 1 else f"every {step}th")

    @property
    def clips_per_video(self) -> int:
        """Clips of a video, or of a window of it, that lie in one long clip."""
        return self.segments * self.views

    @property
    def pixel_scale(self) -> PixelScale:
        """What turns pixels into network input."""
        return PixelScale(self.mean, self.std)

    def one_view(self) -> ClipSpec:
        """Return the same clips with one central view each: those that a probe is trained on."""
        return replace(self, views=1)

    def sampler(self, position: Literal["centre", "random"] = "centre") -> FrameSampler:
        """Return what chooses the frames of a video, or of a part of it."""
        assert self.windows is None, "a spec with windows has no sampler; use `frames`"
        sampler = self._clip_sampler(position)
        if self.segments == 1:
            return sampler
        return SegmentSampler(sampler=sampler, num_segments=self.segments)

    def transform(self) -> EvalTransform | ViewsTransform:
        """Return what turns decoded frames into network input."""
        if self.views == 1:
            return EvalTransform(size=self.size, short_side=self.short_side, mean=self.mean, std=self.std)
        height, width = self.size
        if height != width:
            raise FeaturesError(
                f"{self.views} views of {height} x {width}: several views are square. Give 1 view."
            )
        return ViewsTransform(size=height, num_views=self.views, mean=self.mean, std=self.std)

    def frames(
        self, timestamps: Float64[ndarray, "n"], start: float | None = None, end: float | None = None
    ) -> Int64[ndarray, "w t"]:
        """Return the frame numbers of each clip of a video: of each window, or of the one in the middle.

        Args:
            timestamps: When each frame is first shown, in seconds, ascending.
            start: Seconds at which the usable part of the video begins (default: its beginning).
            end: Seconds at which it ends, exclusive (default: its end).

        Raises:
            ShortVideoError: If the part is empty, or shorter than a window that may not be.
        """
        if self.windows is None:
            return self.sampler().sample(timestamps, np.random.default_rng(0), start, end)[None]
        first, stop = usable_part(timestamps, start, end)
        part, rate = timestamps[first:stop], self.num_frames / self.windows.seconds
        bounds = self.windows.of(timestamps, start, end)
        return first + np.stack([time_indices(part, low, rate, self.num_frames) for low, _ in bounds])

    def _clip_sampler(self, position: Literal["centre", "random"]) -> ClipSampler:
        return ClipSampler(
            num_frames=self.num_frames, fps=self.fps, frame_step=self.frame_step, position=position
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict of numbers, words and lists, which `from_json` reads."""
        windows = {"window": None, "stride": None, "tail": None, "short": None}
        if self.windows is not None:
            window = asdict(self.windows)
            windows = {"window": window.pop("seconds")} | window | {"stride": self.windows.step}
        return {
            **{name: getattr(self, name) for name in FLAT},
            **windows,
            **{name: list(getattr(self, name)) for name in ("size", "mean", "std")},
            "layers": None if self.layers is None else list(self.layers),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ClipSpec:
        """Return the value that `to_json` wrote.

        Files written before windows had a `tail` and a `short` are read with the defaults of `Windows`.

        Raises:
            FeaturesError: If a key is unknown, or a value cannot be.
        """
        known = cls().to_json()
        if unknown := sorted(set(content) - set(known)):
            raise FeaturesError(f"clips with {', '.join(unknown)}: the keys are {', '.join(known)}.")
        _check_types(content)
        values: dict[str, Any] = {name: content[name] for name in FLAT if name in content}
        windows = None
        try:
            for name in ("size", "mean", "std", "layers"):
                if name in content:
                    values[name] = None if content[name] is None else tuple(content[name])
            if content.get("window") is not None:
                given = {name: content.get(name) for name in ("stride", "tail", "short")}
                windows = Windows(content["window"], **{k: v for k, v in given.items() if v is not None})
            return cls(windows=windows, **values)
        except TypeError as error:
            raise FeaturesError(f"clips of {dict(content)} cannot be read: {error}.") from error


@dataclass(frozen=True)
class ClipToInput:
    """A transform from a decoded `Clip` to a normalised (C, T, H, W) tensor; draws nothing."""

    transform: EvalTransform | ViewsTransform

    def __call__(self, clip: Clip) -> Float[Tensor, "3 t h w"]:
        return self.transform(clip.frames)


def default_transform(encoder: VideoEncoder) -> ClipToInput:
    """Return what turns a clip of `vjepa.read_clip` into input of `encoder`: (C, T, H, W), without the batch."""
    return ClipToInput(ClipSpec.for_encoder(encoder).transform())


def _check_types(content: Mapping[str, Any]) -> None:
    """Check that a file says numbers and lists of numbers where it should.

    Raises:
        FeaturesError: If it does not; the message names the key.
    """
    lengths = {"size": (2,), "mean": (3,), "std": (3,), "layers": range(1, MOST_LAYERS)}
    for name, value in content.items():
        if name in lengths:
            numbers = value if isinstance(value, list | tuple) else [None]
            fits = len(numbers) in lengths[name]
        else:
            numbers, fits = [value], True
        if value is None or name in ("tail", "short"):
            continue
        if not fits or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            raise FeaturesError(
                f"{name} of the clips is {value!r}: not a number, or not as many as it should be."
            )


def spec_of_features(about: Mapping[str, Any]) -> ClipSpec:
    """Return the clips of a `features.json`, also of one from before `ClipSpec`, which kept the layers beside it."""
    layers = {"layers": about["layers"]} if "layers" in about else {}
    return ClipSpec.from_json({**about["preprocessing"], **layers})


def spec_of_old_probe(card: Mapping[str, Any]) -> ClipSpec:
    """Return the clips of a `probe.json` from before `ClipSpec`, whose keys lie between others."""
    same = {name: card[name] for name in FLAT if name in card}
    size = _native_size(card["encoder_config"]["img_size"])
    return ClipSpec.from_json({**same, **size, "layers": card.get("levels")})


def _native_size(size: int | tuple[int, int] | list[int]) -> dict[str, Any]:
    height, width = height_and_width(size)
    return {"size": (height, width), "short_side": min(height, width)}
