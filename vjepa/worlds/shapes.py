"""Outlines as signed distances: negative inside, zero on the edge, in the pixels of their arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float

Plane = Float[np.ndarray, "t h w"]
Outline = Callable[[Plane, Plane], Plane]

RING_HOLE = 0.55  # radius of the hole divided by the outer radius
CRESCENT_BITE = (0.85, 0.6)  # radius and shift of the disc that is cut out, divided by the outer radius
CRESCENT_AREA = 1.563  # area of a crescent of outer radius 1, by counting pixels


def _star() -> list[tuple[float, float]]:
    turns = [math.pi * k / 5 for k in range(10)]
    return [((1.0, 0.45)[k % 2] * math.sin(a), (1.0, 0.45)[k % 2] * math.cos(a)) for k, a in enumerate(turns)]


POLYGONS: dict[str, list[tuple[float, float]]] = {
    "bar": [(-3, -1), (3, -1), (3, 1), (-3, 1)],
    "cross": [
        (-1, -3),
        (1, -3),
        (1, -1),
        (3, -1),
        (3, 1),
        (1, 1),
        (1, 3),
        (-1, 3),
        (-1, 1),
        (-3, 1),
        (-3, -1),
        (-1, -1),
    ],
    "ell": [(-2, -3), (2.4, -3), (2.4, -1), (0, -1), (0, 3), (-2, 3)],
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "star": _star(),
    "tee": [(-3, 1), (-1, 1), (-1, -3), (1, -3), (1, 1), (3, 1), (3, 3), (-3, 3)],
    "triangle": [(0, 1), (-math.sqrt(0.75), -0.5), (math.sqrt(0.75), -0.5)],
}
SHAPES = ("bar", "crescent", "cross", "disc", "ell", "ring", "square", "star", "tee", "triangle")


def hero_outline(shape: str, radius: float) -> Outline:
    """Return the centred outline of one of `SHAPES`, with the area of a disc of `radius` whatever the shape."""
    if shape == "disc":
        return partial(disc, radius=radius)
    if shape == "ring":
        return partial(ring, radius=radius / math.sqrt(1 - RING_HOLE**2))
    if shape == "crescent":
        return partial(crescent, radius=radius * math.sqrt(math.pi / CRESCENT_AREA))
    corners = np.asarray(POLYGONS[shape], dtype=np.float64)
    x, y = corners.T
    cross = x * np.roll(y, -1) - y * np.roll(x, -1)
    area = cross.sum() / 2
    centroid = ((corners + np.roll(corners, -1, axis=0)) * cross[:, None]).sum(axis=0) / (6 * area)
    return partial(polygon, corners=(corners - centroid) * radius * math.sqrt(math.pi / abs(area)))


def disc(u: Plane, v: Plane, *, radius: float) -> Plane:
    """Return the distance to a disc."""
    return np.sqrt(u * u + v * v) - np.float32(radius)


def ring(u: Plane, v: Plane, *, radius: float) -> Plane:
    """Return the distance to a ring of outer radius `radius`."""
    middle, half = radius * (1 + RING_HOLE) / 2, radius * (1 - RING_HOLE) / 2
    return np.abs(np.sqrt(u * u + v * v) - np.float32(middle)) - np.float32(half)


def crescent(u: Plane, v: Plane, *, radius: float) -> Plane:
    """Return the distance to a disc with a smaller disc cut out of its right side."""
    bite, shift = CRESCENT_BITE
    # shifted right so that the centre of mass is near the origin
    left = u - np.float32(0.391 * radius)
    return np.maximum(
        disc(left, v, radius=radius), -disc(left - np.float32(shift * radius), v, radius=bite * radius)
    )


def rectangle(u: Plane, v: Plane, *, half_width: float, half_height: float) -> Plane:
    """Return the distance to a rectangle along the nearest axis."""
    return np.maximum(np.abs(u) - np.float32(half_width), np.abs(v) - np.float32(half_height))


def blob(u: Plane, v: Plane, *, radius: float, lobes: int, depth: float) -> Plane:
    """Return the distance to a disc whose edge has `lobes` waves of height `depth`, a share of the radius."""
    edge = np.float32(depth) * np.cos(np.float32(lobes) * np.arctan2(v, u))
    return np.sqrt(u * u + v * v) - np.float32(radius) * (1 + edge)


def polygon(u: Plane, v: Plane, *, corners: Float[np.ndarray, "n 2"]) -> Plane:
    """Return the distance to the nearest edge of a simple polygon, negative inside (algorithm of Quilez)."""
    squared = np.full_like(u, np.inf)
    inside = np.zeros(u.shape, dtype=bool)
    ends = corners.astype(np.float32)
    for (ax, ay), (bx, by) in zip(ends, np.roll(ends, -1, 0), strict=True):
        ex, ey = bx - ax, by - ay
        wu, wv = u - ax, v - ay
        along = np.clip((wu * ex + wv * ey) * (1 / (ex * ex + ey * ey)), 0, 1)
        np.minimum(squared, (wu - ex * along) ** 2 + (wv - ey * along) ** 2, out=squared)
        if ay != by:
            inside ^= ((v < ay) != (v < by)) & (wu < ex * (wv * (1 / ey)))
    return np.where(inside, -1, 1).astype(np.float32) * np.sqrt(squared)
