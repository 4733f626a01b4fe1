"""Tables of additive positions: which table a checkpoint holds, compared number by number, and its grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from vjepa.checkpoints.strict import CheckpointError
from vjepa.layers import sincos_2d, sincos_3d
from vjepa.types import TokenGrid


@dataclass(frozen=True)
class Layout:
    """A kind of table; `h_column(width)` is the channel that holds the sine of the row at the lowest frequency."""

    position: str
    video: bool
    h_column: Callable[[int], int]
    table: Callable[[TokenGrid, int], Tensor]


def _third(width: int) -> int:
    return 2 * -(-width // 6)


def _half(width: int) -> int:
    return width // 2


LAYOUTS = (
    Layout("sincos", True, _third, sincos_3d),
    Layout("sincos_plain", True, _half, partial(sincos_3d, uniform_power=False)),
    Layout("sincos_first", True, _third, sincos_3d),  # the same table as "sincos", so only on request
    Layout("sincos", False, lambda width: 0, sincos_2d),
    Layout("sincos_wh", False, _half, partial(sincos_2d, order="wh")),
)
VIDEO_LAYOUTS = tuple(layout for layout in LAYOUTS if layout.video)
IMAGE_LAYOUTS = tuple(layout for layout in LAYOUTS if not layout.video)
PREDICTOR_LAYOUTS = (*VIDEO_LAYOUTS, IMAGE_LAYOUTS[-1])  # the only predictor of images is I-JEPA's


def recognise(
    table: Float[Tensor, "1 n d"], layouts: Sequence[Layout], given: str | None
) -> tuple[str, TokenGrid]:
    """Return the position style of a table of sines and cosines, which may be `given`, and its grid.

    Raises:
        CheckpointError: If the table has none of the layouts.
    """
    width = table.shape[-1]
    for layout in layouts:
        grid = _grid_of(table[0], layout)
        if grid is None or given not in (None, layout.position):
            continue
        expected = layout.table(grid, width).to(table.dtype)
        tolerance = max(2 * torch.finfo(table.dtype).eps, 1e-6)
        if torch.allclose(table[0], expected, atol=tolerance, rtol=0.0):
            return layout.position, grid
    known = ", ".join(layout.position for layout in layouts)
    raise CheckpointError(
        f"the table of positions {tuple(table.shape)} does not match {known if given is None else given}. If the "
        "network has rotary positions and does not use the table, give position='rope'."
    )


def unused_grid(table: Float[Tensor, "1 n d"]) -> TokenGrid | None:
    """Return the native grid from a table that is not added to tokens; None if it is not a table of sines."""
    return _grid_of(table[0], LAYOUTS[0])


def _grid_of(table: Float[Tensor, "n d"], layout: Layout) -> TokenGrid | None:
    """Return the grid of a table: the sine of a coordinate is 0 at coordinate 0, and not at 1."""
    count, width = table.shape
    plane = _zeros(table[:, 0]) if layout.video else count
    row = _zeros(table[:plane, layout.h_column(width) % width])
    if not plane or not row or count % plane or plane % row:
        return None
    return TokenGrid(t=count // plane, h=plane // row, w=row)


def _zeros(column: Float[Tensor, "n"]) -> int:
    """Return the number of leading zeros."""
    others = column.nonzero()
    return int(others[0, 0]) if len(others) else len(column)
