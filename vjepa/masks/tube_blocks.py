"""Multi-block masks in space and time: the masks of V-JEPA (arXiv 2404.08471, section 3.2) and V-JEPA 2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.masks.base import MaskStrategy, Surplus, complement, pair_from_hidden
from vjepa.masks.boxes import between, check_range, draw_corners, inside, sides
from vjepa.types import MaskPair, TokenGrid


@dataclass(kw_only=True, eq=False)
class TubeBlocks(MaskStrategy):
    """Strategy that hides the union of `num_blocks` boxes per clip; all boxes of a batch have the same size.

    The published recipe uses two strategies: 8 blocks of spatial scale 0.15, and 2 blocks of 0.7.

    Args:
        num_blocks: Number of boxes per clip.
        spatial_scale: Range of a box's share of a frame.
        temporal_scale: Range of a box's share of the clip's length; (1, 1) makes tubes through the whole clip.
        aspect_ratio: Range of a box's height divided by its width.
        max_temporal_keep: Share of the clip, from its start, that may be visible; everything later is hidden.
        max_keep: Maximum number of context tokens per clip; None for no limit.
        complement: With "target" the target is every token outside the context, with "context" the context is
            every token outside the target, so no token is lost. With "none" both drop the
            tokens that a row has more than the smallest row of the batch.
        invert: Show the tokens that the boxes cover, and predict the others.
        surplus: Which excess tokens to drop from rows with more tokens than the batch's smallest row: a "random"
            part, or the "tail" (the latest).
    """

    num_blocks: int = 8
    spatial_scale: tuple[float, float] = (0.15, 0.15)
    temporal_scale: tuple[float, float] = (1.0, 1.0)
    aspect_ratio: tuple[float, float] = (0.75, 1.5)
    max_temporal_keep: float = 1.0
    max_keep: int | None = None
    complement: Literal["none", "target", "context"] = "none"
    invert: bool = False
    surplus: Surplus = "random"

    def __post_init__(self) -> None:
        check_range("spatial_scale", self.spatial_scale)
        check_range("temporal_scale", self.temporal_scale)
        check_range("aspect_ratio", self.aspect_ratio, math.inf)
        if not 0 < self.max_temporal_keep <= 1:
            raise SettingError(
                f"max_temporal_keep is {self.max_temporal_keep}. Give a share above 0, at most 1."
            )
        if self.num_blocks < 1 or (self.max_keep is not None and self.max_keep < 1):
            given = f"{self.num_blocks}, {self.max_keep}"
            raise SettingError(f"num_blocks and max_keep must be at least 1, got {given}.")

    @property
    def uniform_in_time(self) -> bool:
        """True for tubes through the whole clip whose excess tokens are dropped at random."""
        tubes = self.temporal_scale[0] == 1.0 and self.max_temporal_keep >= 1.0
        return tubes and self.surplus == "random"

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw a box size for the batch, then the boxes of each clip."""
        return self.place(grid, self.block_size(grid, generator), batch_size, generator)

    def block_size(self, grid: TokenGrid, generator: torch.Generator) -> tuple[int, int, int]:
        """Draw the size (t, h, w) of a box in tokens from three uniforms: for time, space and aspect ratio."""
        u_time, u_space, u_aspect = torch.rand(3, generator=generator).tolist()
        temporal = between(self.temporal_scale, u_time)
        scale, aspect = between(self.spatial_scale, u_space), between(self.aspect_ratio, u_aspect)
        height, width = sides(grid, scale, aspect, (grid.h, grid.w))
        return max(1, int(grid.t * temporal)), height, width

    def place(
        self, grid: TokenGrid, size: tuple[int, int, int], batch_size: int, generator: torch.Generator
    ) -> MaskPair:
        """Draw positions of boxes of one size; a clip without a visible token is drawn again.

        Raises:
            ValueError: If boxes of this size always hide every token.
        """
        self._check_fit(grid, size)
        rows: list[Tensor] = []
        missing = batch_size
        while missing:
            hidden = self._draw(grid, size, missing, generator)
            visible = rearrange(~hidden, "b t h w -> b (t h w)").any(1)
            rows.append(hidden[visible])
            missing -= int(visible.sum())
        pair = pair_from_hidden(
            torch.cat(rows), surplus=self.surplus, generator=generator, max_keep=self.max_keep
        )
        return self._finish(pair, grid)

    def _draw(
        self, grid: TokenGrid, size: tuple[int, int, int], rows: int, generator: torch.Generator
    ) -> Bool[Tensor, "b t h w"]:
        """Draw the hidden tokens of `rows` clips: the union of their boxes and of the time past `max_temporal_keep`."""
        t, h, w = size
        places = torch.tensor([(grid.h - h + 1, grid.w - w + 1, grid.t - t + 1)] * self.num_blocks)
        top, left, start = draw_corners(places, rows, generator).unbind(-1)
        # the number of boxes that cover a token, as a matrix product: many times faster than any() over the boxes
        in_frame = inside(top, h, grid.h)[..., None] & inside(left, w, grid.w)[:, :, None]
        covers = inside(start, t, grid.t).mT.float() @ rearrange(in_frame, "b k h w -> b k (h w)").float()
        hidden = rearrange(covers > 0, "b t (h w) -> b t h w", h=grid.h)
        hidden[:, self._visible_time(grid) :] = True
        return hidden

    def _visible_time(self, grid: TokenGrid) -> int:
        return max(1, int(grid.t * self.max_temporal_keep))

    def _check_fit(self, grid: TokenGrid, size: tuple[int, int, int]) -> None:
        if size == (grid.t, grid.h, grid.w):
            raise SettingError(
                f"a block of {size} tokens hides the whole grid ({grid.t}, {grid.h}, {grid.w}). "
                "Lower spatial_scale or temporal_scale, or use larger clips."
            )

    def _finish(self, pair: MaskPair, grid: TokenGrid) -> MaskPair:
        if self.complement == "target":
            pair = MaskPair(context=pair.context, target=complement(pair.context, len(grid)))
        elif self.complement == "context":
            pair = MaskPair(context=complement(pair.target, len(grid)), target=pair.target)
        return MaskPair(context=pair.target, target=pair.context) if self.invert else pair
