"""Rendering of a scene: all frames of a clip at once, each sprite only in a window around it."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8

from vjepa.worlds.scenes import CONTRAST, SIDE, Scene, Sprite

FLICKER = 0.3  # standard deviation of a frame's brightness, in standard deviations of the noise
CHROMA = 0.4  # standard deviation of the colour noise, in standard deviations of the noise


def render(
    scene: Scene, *, size: int, noise: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "t size size 3"]:
    """Render the frames of a scene, with `size` pixels per side.

    `noise` is its standard deviation divided by the contrast between hero and background, drawn from `rng`.
    """
    scale = size / SIDE
    pad = math.ceil(2 * scale * max(sprite.reach for sprite in scene.sprites)) + 4
    canvas = np.zeros((len(scene.jitter), size + 2 * pad, size + 2 * pad, 3), dtype=np.float32)
    picture = canvas[:, pad : pad + size, pad : pad + size]
    picture[:] = scene.background.drifted(scene.drift + scene.jitter, size=size)
    for sprite in scene.sprites:
        _paint(canvas, sprite, jitter=scene.jitter, scale=scale, pad=pad)
    if noise > 0:
        picture += _noise(len(canvas), size, sigma=noise * CONTRAST, rng=rng)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _paint(
    canvas: Float[np.ndarray, "t h w 3"], sprite: Sprite, *, jitter: np.ndarray, scale: float, pad: int
) -> None:
    """Blend a sprite into the padded canvas, in place."""
    window = 2 * math.ceil(sprite.reach * scale) + 2
    centre = (sprite.centre + jitter) * scale + pad
    corner = np.clip(np.floor(centre).astype(np.int64) - window // 2, 0, canvas.shape[1] - window)
    columns, rows = (corner[:, axis, None] + np.arange(window) for axis in (0, 1))
    x = (columns + 0.5 - centre[:, :1]).astype(np.float32)[:, None, :]
    y = (rows + 0.5 - centre[:, 1:]).astype(np.float32)[:, :, None]
    cos, sin = (f(sprite.angle).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    u, v = (x * cos + y * sin) / np.float32(scale), (y * cos - x * sin) / np.float32(scale)
    cover = np.clip(0.5 - np.float32(scale) * sprite.outline(u, v), 0, 1)[..., None]
    place = (np.arange(len(canvas))[:, None, None], rows[:, :, None], columns[:, None, :])
    under = canvas[place]
    canvas[place] = under + cover * (sprite.texture.colour(u, v) - under)


def _noise(
    num_frames: int, size: int, *, sigma: float, rng: np.random.Generator
) -> Float[np.ndarray, "t size size 3"]:
    """Draw noise: half white, half in blocks of 2 (which survive compression), colour in blocks of 4, and flicker."""

    def blocks(side: int, *channels: int) -> np.ndarray:
        cells = -(-size // side) + 1
        grain = rng.standard_normal((num_frames, cells, cells, *channels), dtype=np.float32)
        row, column = rng.integers(side, size=2)
        whole = grain.repeat(side, axis=1).repeat(side, axis=2)
        return whole[:, row : row + size, column : column + size]

    light = math.sqrt(0.5) * (blocks(1) + blocks(2)) + FLICKER * rng.standard_normal((num_frames, 1, 1))
    colour = blocks(4, 3)
    return (np.float32(sigma) * (light[..., None] + np.float32(CHROMA) * colour)).astype(np.float32)
