"""Multi-block masks in space-time: the masks of V-JEPA (arXiv 2404.08471, section 3.2) and V-JEPA 2."""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.masks.base import MaskStrategy, Surplus, complement, pair_from_hidden
from vjepa.types import MaskPair, TokenGrid


class TubeBlocks(MaskStrategy):
    """Hides the union of `num_blocks` boxes a clip; all boxes of a batch have one size.

    The published recipe is two strategies: 8 blocks of spatial scale 0.15, and 2 blocks of 0.7.

    Args:
        num_blocks: Boxes a clip.
        spatial_scale: Range of a box's share of a frame.
        temporal_scale: Range of a box's share of the clip's length; 1 to 1 makes tubes through all of it.
        aspect_ratio: Range of a box's height over its width.
        max_temporal_keep: Share of the clip, from its start, that may be seen; what comes later is hidden.
        max_keep: Most context tokens a clip; None for no limit.
        complement: Make the "target" all that is not context, or the "context" all that is not target, so that
            no surplus is lost; "none" drops surplus from both.
        invert: See what the boxes cover, and predict the rest.
        surplus: How rows with more tokens than the batch's smallest are cut: at "random" or at the "tail".
    """

    def __init__(
        self,
        *,
        num_blocks: int = 8,
        spatial_scale: tuple[float, float] = (0.15, 0.15),
        temporal_scale: tuple[float, float] = (1.0, 1.0),
        aspect_ratio: tuple[float, float] = (0.75, 1.5),
        max_temporal_keep: float = 1.0,
        max_keep: int | None = None,
        complement: Literal["none", "target", "context"] = "none",
        invert: bool = False,
        surplus: Surplus = "random",
    ) -> None:
        for name, (low, high), top in (
            ("spatial_scale", spatial_scale, 1.0),
            ("temporal_scale", temporal_scale, 1.0),
            ("aspect_ratio", aspect_ratio, math.inf),
        ):
            if not 0 < low <= high <= top:
                raise SettingError(f"{name} is a range 0 < low <= high <= {top}, got ({low}, {high}).")
        if num_blocks < 1 or (max_keep is not None and max_keep < 1):
            raise SettingError(f"num_blocks and max_keep must be at least 1, got {num_blocks}, {max_keep}.")
        self.num_blocks = num_blocks
        self.spatial_scale = spatial_scale
        self.temporal_scale = temporal_scale
        self.aspect_ratio = aspect_ratio
        self.max_temporal_keep = max_temporal_keep
        self.max_keep = max_keep
        self.complement = complement
        self.invert = invert
        self.surplus = surplus

    @property
    def uniform_in_time(self) -> bool:
        """With tubes through the whole clip whose surplus is cut at random."""
        tubes = self.temporal_scale[0] == 1.0 and self.max_temporal_keep >= 1.0
        return tubes and self.surplus == "random"

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw a box size for the batch, then boxes for each clip."""
        return self.place(grid, self.block_size(grid, generator), batch_size, generator)

    def block_size(self, grid: TokenGrid, generator: torch.Generator) -> tuple[int, int, int]:
        """Size (t, h, w) of a box in tokens.

        Three uniforms are drawn, for time, space and aspect; the sides are rounded half to even.
        """
        u_time, u_space, u_aspect = torch.rand(3, generator=generator).tolist()
        temporal = _between(self.temporal_scale, u_time)
        area = int(grid.h * grid.w * _between(self.spatial_scale, u_space))
        aspect = _between(self.aspect_ratio, u_aspect)
        height = min(grid.h, max(1, round(math.sqrt(area * aspect))))
        width = min(grid.w, max(1, round(math.sqrt(area / aspect))))
        return max(1, int(grid.t * temporal)), height, width

    def place(
        self, grid: TokenGrid, size: tuple[int, int, int], batch_size: int, generator: torch.Generator
    ) -> MaskPair:
        """Place boxes of one size; a clip whose boxes leave nothing to see is drawn again.

        Raises:
            ValueError: If the boxes can never leave a token to see.
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
        """Hidden tokens of `rows` clips: the union of their boxes, and of the frames beyond `max_temporal_keep`."""
        t, h, w = size
        places = (grid.h - h + 1, grid.w - w + 1, grid.t - t + 1)
        # one call for all boxes, yet the stream of a call per number: r mod lcm mod n == r mod n
        draws = torch.randint(math.lcm(*places), (rows, self.num_blocks, 3), generator=generator)
        top, left, start = (draws % torch.tensor(places)).unbind(-1)
        # how many boxes cover a token: a product of matrices, many times quicker than any() over the boxes
        in_frame = _inside(top, h, grid.h)[..., None] & _inside(left, w, grid.w)[:, :, None]
        covers = _inside(start, t, grid.t).mT.float() @ rearrange(in_frame, "b k h w -> b k (h w)").float()
        hidden = rearrange(covers > 0, "b t (h w) -> b t h w", h=grid.h)
        hidden[:, self._visible_time(grid) :] = True
        return hidden

    def _visible_time(self, grid: TokenGrid) -> int:
        return max(1, int(grid.t * self.max_temporal_keep))

    def _check_fit(self, grid: TokenGrid, size: tuple[int, int, int]) -> None:
        if size[1:] == (grid.h, grid.w) and size[0] >= self._visible_time(grid) and size[0] == grid.t:
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


def _between(interval: tuple[float, float], u: float) -> float:
    low, high = interval
    return low + u * (high - low)


def _inside(start: Tensor, extent: int, length: int) -> Bool[Tensor, "b k {length}"]:
    """Which of `length` places lie in [start, start + extent)."""
    places = torch.arange(length)
    return (places >= start[..., None]) & (places < start[..., None] + extent)
