"""Block masks of images: the masks of I-JEPA (arXiv 2301.08243, section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Int
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.layers import cross_masks
from vjepa.masks.base import MaskStrategy, Surplus, take_ids
from vjepa.masks.boxes import between, check_range, draw_corners, inside, sides
from vjepa.types import MaskPair, TokenGrid

MAX_DRAWS = 1000  # attempts to draw blocks that leave enough visible sites
SMALL_SHARE = 10  # a grid with fewer than SMALL_SHARE * min_keep sites keeps 1 / SMALL_SHARE of them visible
Size = tuple[int, int]


@dataclass(kw_only=True, eq=False)
class ImageBlocks(MaskStrategy):
    """Strategy that hides small target blocks and shows a large context block outside them.

    The block sizes are drawn once per batch. An image is a clip of one frame; in a longer clip the blocks are tubes
    through the whole clip.

    Args:
        num_targets: Number of target blocks per image. An objective predicts each alone if it can, else their union.
        target_scale: Range of a target block's share of the image.
        aspect_ratio: Range of a target block's height divided by its width. As published, one random number sets
            both scale and ratio.
        context_scale: Range of the context block's share of the image; the block is square.
        min_keep: Minimum number of visible sites; an image with fewer is drawn again. A small grid needs one tenth
            of its sites.
        last_place: Allow blocks to reach the last row and column; the released code never does.
        surplus: Which excess tokens to drop from rows with more tokens than the batch's smallest row: a "random"
            part, or the "tail" (the latest).
    """

    num_targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    aspect_ratio: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    min_keep: int = 10
    last_place: bool = True
    surplus: Surplus = "random"

    def __post_init__(self) -> None:
        check_range("target_scale", self.target_scale)
        check_range("aspect_ratio", self.aspect_ratio, math.inf)
        check_range("context_scale", self.context_scale)
        if self.num_targets < 1:
            raise SettingError(f"num_targets must be at least 1, got {self.num_targets}.")

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw block sizes for the batch, then the blocks of each image; the target is the union of its blocks."""
        seen, blocks = self.place(grid, self.block_sizes(grid, generator), batch_size, generator)
        return MaskPair(
            context=self.ids(seen, grid, generator), target=self.ids(blocks.any(1), grid, generator)
        )

    def sample_apart(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw as `sample` does, with `num_targets * batch_size` rows: one target block and the image's context."""
        seen, blocks = self.place(grid, self.block_sizes(grid, generator), batch_size, generator)
        context = self.ids(seen, grid, generator)
        return cross_masks([context], [self.ids(block, grid, generator) for block in blocks.unbind(1)])

    def block_sizes(self, grid: TokenGrid, generator: torch.Generator) -> tuple[Size, Size]:
        """Draw the sizes (h, w) of the target blocks and the context block, in tokens, smaller than the image."""
        if min(grid.h, grid.w) < 2:
            raise SettingError(
                f"image blocks need at least 2 tokens per side, got {grid.h} x {grid.w}. "
                "Use larger images or smaller patches."
            )
        u_target, u_context = torch.rand(2, generator=generator).tolist()
        aspect, limit = between(self.aspect_ratio, u_target), (grid.h - 1, grid.w - 1)
        target = sides(grid, between(self.target_scale, u_target), aspect, limit)
        return target, sides(grid, between(self.context_scale, u_context), 1.0, limit)

    def place(
        self, grid: TokenGrid, sizes: tuple[Size, Size], batch_size: int, generator: torch.Generator
    ) -> tuple[Bool[Tensor, "b h w"], Bool[Tensor, "b m h w"]]:
        """Draw the context sites, which lie outside all target blocks, and the sites of each target block.

        If too few sites are visible, this draws both again, so that the context never overlaps the targets. The
        published code draws only the context block again, and after some attempts lets it overlap the targets.

        Raises:
            ValueError: If an image's blocks never leave `min_keep` sites visible.
        """
        fewest = min(self.min_keep, max(1, grid.h * grid.w // SMALL_SHARE))
        seen: list[Tensor] = []
        blocks: list[Tensor] = []
        missing = batch_size
        for _ in range(MAX_DRAWS):
            drawn = self._draw(grid, sizes, missing, generator)
            targets, context = drawn[:, :-1], drawn[:, -1] & ~drawn[:, :-1].any(1)
            good = rearrange(context, "b h w -> b (h w)").sum(1) >= fewest
            seen.append(context[good])
            blocks.append(targets[good])
            missing -= int(good.sum())
            if not missing:
                return torch.cat(seen), torch.cat(blocks)
        raise SettingError(
            f"{self.num_targets} target blocks of {sizes[0]} in a grid of {grid.h} x {grid.w} never leave {fewest} "
            f"sites of a context block of {sizes[1]}. Lower num_targets, target_scale or min_keep."
        )

    def ids(
        self, sites: Bool[Tensor, "b h w"], grid: TokenGrid, generator: torch.Generator
    ) -> Int[Tensor, "b k"]:
        """Return the ids of chosen sites at all time steps, cut to the batch's smallest row."""
        chosen = repeat(sites, "b h w -> b (t h w)", t=grid.t)
        return take_ids(chosen, int(chosen.sum(1).min()), self.surplus, generator)

    def _draw(
        self, grid: TokenGrid, sizes: tuple[Size, Size], rows: int, generator: torch.Generator
    ) -> Bool[Tensor, "b m h w"]:
        """Draw the sites of the blocks of `rows` images: the target blocks, then the context block."""
        target, context = sizes
        height, width = torch.tensor([target] * self.num_targets + [context]).unbind(-1)
        more = int(self.last_place)
        places = torch.stack([grid.h - height + more, grid.w - width + more], dim=-1)
        top, left = draw_corners(places, rows, generator).unbind(-1)
        return inside(top, height, grid.h)[..., :, None] & inside(left, width, grid.w)[..., None, :]
