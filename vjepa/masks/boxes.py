"""Arithmetic of boxes in a token grid, shared by the block masks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.types import TokenGrid

Range = tuple[float, float]


def check_range(name: str, interval: Range, top: float = 1.0) -> None:
    """Raise `SettingError` if an option is not a range 0 < low <= high <= `top`."""
    low, high = interval
    if not 0 < low <= high <= top:
        raise SettingError(f"{name} is a range 0 < low <= high <= {top}, got ({low}, {high}).")


def between(interval: Range, u: float) -> float:
    """Return the value at fraction `u` of a range.

    >>> between((0.5, 1.5), 0.25)
    0.75
    """
    low, high = interval
    return low + u * (high - low)


def sides(grid: TokenGrid, scale: float, aspect: float, limit: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a box in tokens, at most `limit`; the sides are rounded half to even.

    `scale` is the area of the box divided by that of a frame, `aspect` its height divided by its width.
    """
    area = int(grid.h * grid.w * scale)
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return max(1, min(height, limit[0])), max(1, min(width, limit[1]))


def draw_corners(
    places: Int[Tensor, "m axes"], rows: int, generator: torch.Generator
) -> Int[Tensor, "b m axes"]:
    """Draw the first corner of each of m boxes for each row, among the number of `places` along each axis."""
    # One draw modulo the least common multiple, reduced per axis, equals one draw per axis in the released
    # sampler: r mod lcm mod n == r mod n
    draws = torch.randint(math.lcm(*places.flatten().tolist()), (rows, *places.shape), generator=generator)
    return draws % places


def inside(
    start: Int[Tensor, "b m"], extent: Int[Tensor, "m"] | int, length: int
) -> Bool[Tensor, "b m {length}"]:
    """Return which of `length` positions lie in [start, start + extent)."""
    positions = torch.arange(length)
    return (positions >= start[..., None]) & (positions < (start + extent)[..., None])
