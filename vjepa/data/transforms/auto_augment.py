"""Random changes of colour and shape, the same for all frames of a clip: RandAugment and AutoAugment as published.

Pillow changes the pixels, because the published recipes are defined by it (bicubic, fixed fill): the changed frames
are equal to the bit. Every draw comes from the given generator; no global random state is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.types import check_bytes

Fill = tuple[int, int, int]

GREY: Fill = (128, 128, 128)  # around moved frames, as published for videos
STRONGEST = 10.0  # magnitudes go from 0 to 10
SOLARIZE_BELOW = 128  # solarize_add does not change brighter pixels
BICUBIC = Image.Resampling.BICUBIC


class Operation(NamedTuple):
    """One change with its strength, in the change's own unit (degrees, bits, a factor, a share of the width)."""

    name: str
    strength: float


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Fill) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=BICUBIC, fillcolor=fill)


def _solarize_add(image: Image.Image, added: int) -> Image.Image:
    table = [min(255, level + added) if level < SOLARIZE_BELOW else level for level in range(256)]
    return image.point(table * 3)


Change = Callable[[Image.Image, float, Fill], Image.Image]
CHANGES: Mapping[str, Change] = {
    "auto_contrast": lambda image, _, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, _, fill: ImageOps.equalize(image),
    "invert": lambda image, _, fill: ImageOps.invert(image),
    "rotate": lambda image, degrees, fill: image.rotate(degrees, resample=BICUBIC, fillcolor=fill),
    "posterize": lambda image, bits, fill: image if bits >= 8 else ImageOps.posterize(image, int(bits)),
    "solarize": lambda image, threshold, fill: ImageOps.solarize(image, int(threshold)),
    "solarize_add": lambda image, added, fill: _solarize_add(image, int(added)),
    "color": lambda image, factor, fill: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, factor, fill: ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda image, factor, fill: ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda image, factor, fill: ImageEnhance.Sharpness(image).enhance(factor),
    "shear_x": lambda image, slope, fill: _affine(image, (1.0, slope, 0.0, 0.0, 1.0, 0.0), fill),
    "shear_y": lambda image, slope, fill: _affine(image, (1.0, 0.0, 0.0, slope, 1.0, 0.0), fill),
    "translate_x": lambda image, share, fill: _affine(
        image, (1.0, 0.0, share * image.width, 0.0, 1.0, 0.0), fill
    ),
    "translate_y": lambda image, share, fill: _affine(
        image, (1.0, 0.0, 0.0, 0.0, 1.0, share * image.height), fill
    ),
}

# strength at a magnitude of 0 to 10; the sign, -1 or 1, is for changes with two directions
Strength = Callable[[float, int], float]


def _factor(magnitude: float, sign: int) -> float:
    return max(0.1, 1.0 + sign * magnitude / STRONGEST * 0.9)


# the 15 changes of RandAugment that grow with the magnitude
INCREASING: Mapping[str, Strength] = {
    "auto_contrast": lambda magnitude, sign: 0.0,
    "equalize": lambda magnitude, sign: 0.0,
    "invert": lambda magnitude, sign: 0.0,
    "rotate": lambda magnitude, sign: sign * magnitude / STRONGEST * 30.0,
    "posterize": lambda magnitude, sign: max(1, 4 - int(magnitude / STRONGEST * 4)),  # Pillow refuses 0 bits
    "solarize": lambda magnitude, sign: 256 - min(256, int(magnitude / STRONGEST * 256)),
    "solarize_add": lambda magnitude, sign: min(128, int(magnitude / STRONGEST * 110)),
    "color": _factor,
    "contrast": _factor,
    "brightness": _factor,
    "sharpness": _factor,
    "shear_x": lambda magnitude, sign: sign * magnitude / STRONGEST * 0.3,
    "shear_y": lambda magnitude, sign: sign * magnitude / STRONGEST * 0.3,
    "translate_x": lambda magnitude, sign: sign * magnitude / STRONGEST * 0.45,
    "translate_y": lambda magnitude, sign: sign * magnitude / STRONGEST * 0.45,
}
# AutoAugment's own scales, which differ for some
ORIGINAL: Mapping[str, Strength] = {
    **INCREASING,
    "posterize": lambda magnitude, sign: 4 + int(magnitude / STRONGEST * 4),
    "solarize": lambda magnitude, sign: min(256, int(magnitude / STRONGEST * 256)),
    **dict.fromkeys(
        ("color", "contrast", "sharpness"), lambda magnitude, sign: 0.1 + magnitude / STRONGEST * 1.8
    ),
}

# (change, probability, magnitude) twice: the ImageNet policy of AutoAugment, arXiv 1805.09501, table 9
Step = tuple[str, float, float]
IMAGENET_PAIRS: tuple[tuple[Step, Step], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)


@dataclass(frozen=True)
class RandAugment:
    """A policy of `num_ops` of the 15 changes, drawn with replacement and each applied with `probability`.

    `magnitude` (mean) and `magnitude_std` give the distribution of strengths, out of 10; each change draws its own.
    """

    num_ops: int = 2
    magnitude: float = STRONGEST
    magnitude_std: float = 0.0
    probability: float = 0.5

    def draw(self, generator: np.random.Generator) -> tuple[Operation, ...]:
        """Draw the changes of one clip, in order."""
        names = list(INCREASING)
        chosen = [names[i] for i in generator.integers(len(names), size=self.num_ops)]
        return tuple(
            Operation(name, float(INCREASING[name](self._magnitude(generator), _sign(generator))))
            for name in chosen
            if generator.random() < self.probability
        )

    def _magnitude(self, generator: np.random.Generator) -> float:
        return float(np.clip(generator.normal(self.magnitude, self.magnitude_std), 0.0, STRONGEST))


@dataclass(frozen=True)
class AutoAugment:
    """The ImageNet policy: one of 25 pairs of changes, each change with its own probability."""

    def draw(self, generator: np.random.Generator) -> tuple[Operation, ...]:
        """Draw the changes of one clip, in order."""
        pair = IMAGENET_PAIRS[int(generator.integers(len(IMAGENET_PAIRS)))]
        return tuple(
            Operation(name, float(ORIGINAL[name](float(magnitude), _sign(generator))))
            for name, probability, magnitude in pair
            if generator.random() < probability
        )


def policy_named(text: str) -> RandAugment | AutoAugment:
    """Return the policy that a published configuration names.

    Args:
        text: "original" (AutoAugment's for ImageNet), or "rand" with `-m` magnitude, `-n` number of changes, `-mstd`
            standard deviation of the magnitude, `-p` probability of each change, and `-inc1`: all scales increase.

    Raises:
        ValueError: If the text has another form.

    >>> policy_named("rand-m7-n4-mstd0.5-inc1")
    RandAugment(num_ops=4, magnitude=7.0, magnitude_std=0.5, probability=0.5)
    """
    if text == "original":
        return AutoAugment()
    head, *parts = text.split("-")
    found = [re.fullmatch(r"(mstd|inc|m|n|p)(\d+(?:\.\d+)?)", part) for part in parts]
    values = {match[1]: float(match[2]) for match in found if match}
    well_formed = head == "rand" and all(found) and len(values) == len(parts) and values.pop("inc", 0) == 1
    number, probability = values.get("n", 2), values.get("p", 0.5)
    if not well_formed or values.get("m", 0) > STRONGEST or number % 1 or not 0 <= probability <= 1:
        raise SettingError(
            f"auto_augment '{text}': give 'original', or 'rand-m7-n4-mstd0.5-inc1' with your own numbers "
            "(m at most 10, n whole, p at most 1, inc always 1), or null for none."
        )
    return RandAugment(
        num_ops=int(number),
        magnitude=values.get("m", STRONGEST),
        magnitude_std=values.get("mstd", 0.0),
        probability=probability,
    )


def change_frames(
    frames: UInt8[Tensor, "t 3 h w"], operations: Sequence[Operation], fill: Fill = GREY
) -> UInt8[Tensor, "t 3 h w"]:
    """Apply the changes in order to all frames in the same way; `fill` is the colour that a moved frame uncovers."""
    check_bytes(frames)
    if not operations:
        return frames
    images = [Image.fromarray(frame) for frame in rearrange(frames, "t c h w -> t h w c").numpy()]
    for name, strength in operations:
        images = [CHANGES[name](image, strength, fill) for image in images]
    return rearrange(
        torch.from_numpy(np.stack([np.asarray(image) for image in images])), "t h w c -> t c h w"
    )


def _sign(generator: np.random.Generator) -> int:
    return int(generator.integers(2)) * 2 - 1
