"""Textures of objects and backgrounds. Training and validation clips use different families."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Split = Literal["train", "val"]
TEXTURES: dict[Split, tuple[str, ...]] = {"train": ("stripes", "checks", "patches"), "val": ("dots", "waves")}
BACKGROUNDS: dict[Split, tuple[str, ...]] = {"train": ("clouds", "tiles"), "val": ("ripples", "ridges")}
TILE = 96  # side of the background tile, which repeats without a seam
TINT = 8.0  # largest difference of a colour channel from grey, of 255, so that colour reveals nothing
DARKER = (0.8, 1.0)  # contrast of an object's darker colour divided by that of its brighter colour
BACKGROUND_GAIN = (4.0, 7.0)  # standard deviation of the background's pattern, of 255
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Texture:
    """Two colours mixed by a pattern that moves and rotates with the object.

    `low` and `high` are RGB (3,), 0 to 255; `period` is in pixels of 64; `cells` (8, 8) is used by "patches".
    """

    kind: str
    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]
    period: float
    phase: float
    cells: Float[np.ndarray, "8 8"]

    def colour(
        self, u: Float[np.ndarray, "t h w"], v: Float[np.ndarray, "t h w"]
    ) -> Float[np.ndarray, "t h w 3"]:
        """Return RGB at the object's own coordinates `u`, `v`, in pixels of 64."""
        step = self.high - self.low
        return self.low.astype(np.float32) + self._weight(u, v)[..., None] * step.astype(np.float32)

    def _weight(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        rate = np.float32(2 * math.pi / self.period)
        a, b = u * rate + np.float32(self.phase), v * rate
        if self.kind == "stripes":
            wave = np.sin(a)
        elif self.kind == "checks":
            wave = 2 * np.sin(a * np.float32(0.7)) * np.sin(b * np.float32(0.7))
        elif self.kind == "dots":
            wave = np.cos(a * np.float32(0.8)) + np.cos(b * np.float32(0.8)) - np.float32(0.5)
        elif self.kind == "waves":
            wave = np.sin(a + np.float32(1.5) * np.sin(b))
        else:
            scale = np.float32(2 / self.period)
            row, column = (np.floor(x * scale).astype(np.int64) & 7 for x in (u, v))
            return self.cells[row, column]
        return np.clip(0.5 + np.float32(self.period / 5) * wave, 0, 1)


def random_texture(
    kind: str, *, background: float, contrast: tuple[float, float], rng: np.random.Generator
) -> Texture:
    """Draw a texture of a family of `TEXTURES` that is brighter than the background, whose mean luminance is 0 to 255.

    `contrast` is the range of the difference in luminance between object and background.
    """
    high = rng.uniform(*contrast)
    low = high * rng.uniform(*DARKER)
    return Texture(
        kind=kind,
        low=_tinted(background + low, rng),
        high=_tinted(background + high, rng),
        period=rng.uniform(6.0, 11.0),
        phase=rng.uniform(0, 2 * math.pi),
        cells=(rng.random((8, 8)) < 0.5).astype(np.float32),
    )


def _tinted(luminance: float, rng: np.random.Generator) -> np.ndarray:
    tint = rng.uniform(-TINT, TINT, size=3)
    return np.clip(luminance + tint - tint @ LUMA, 0, 255)


@dataclass(frozen=True)
class Background:
    """Pattern `tile` (TILE, TILE) that repeats without a seam, with the colour `shade` (3,) + `gain` (3,) * tile."""

    tile: Float[np.ndarray, "side side"]
    shade: Float[np.ndarray, "3"]
    gain: Float[np.ndarray, "3"]

    def drifted(self, shift: Float[np.ndarray, "t 2"], *, size: int) -> Float[np.ndarray, "t size size 3"]:
        """Return RGB frames of the pattern moved by `shift` (x, y) in pixels of 64, with `size` pixels per side."""
        pixels = (np.arange(size) + 0.5) * (64 / size)
        column, x = np.divmod((pixels - shift[:, :1]) % TILE, 1)
        row, y = np.divmod((pixels - shift[:, 1:]) % TILE, 1)
        column, row = column.astype(np.int64), row.astype(np.int64)
        x, y = x.astype(np.float32)[:, None, :], y.astype(np.float32)[:, :, None]
        wrapped = np.pad(self.tile, ((0, 1), (0, 1)), mode="wrap")
        lines = wrapped[row] * (1 - y) + wrapped[row + 1] * y  # (T, size, TILE + 1)
        left = np.take_along_axis(lines, column[:, None, :], axis=2)
        right = np.take_along_axis(lines, column[:, None, :] + 1, axis=2)
        return self.shade + self.gain * (left * (1 - x) + right * x)[..., None]


def random_background(kind: str, *, luminance: float, rng: np.random.Generator) -> Background:
    """Draw a background of a family of `BACKGROUNDS`, of a given mean luminance, 0 to 255."""
    if kind == "tiles":
        pattern = np.kron(rng.standard_normal((12, 12)), np.ones((TILE // 12, TILE // 12)))
    elif kind == "ripples":
        y, x = np.mgrid[:TILE, :TILE] * (2 * math.pi / TILE)
        waves = [(*rng.integers(-9, 10, size=2), rng.uniform(0, 2 * math.pi)) for _ in range(6)]
        pattern = sum(np.sin(i * x + j * y + phase) for i, j, phase in waves)
    else:
        pattern = _smooth_noise(rng)
        pattern = np.abs(pattern) if kind == "ridges" else pattern
    pattern = (pattern - pattern.mean()) / (pattern.std() + 1e-6)  # a flat pattern stays flat
    gain = rng.uniform(*BACKGROUND_GAIN) * (1 + rng.uniform(-0.3, 0.3, size=3))
    return Background(
        tile=pattern.astype(np.float32),
        shade=_tinted(luminance, rng).astype(np.float32),
        gain=gain.astype(np.float32),
    )


def _smooth_noise(rng: np.random.Generator) -> np.ndarray:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(TILE), np.fft.rfftfreq(TILE), indexing="ij")) * TILE
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
    return np.fft.irfft2(spectrum * ((frequency > 0) * np.exp(-((frequency / 9.0) ** 2))), s=(TILE, TILE))
