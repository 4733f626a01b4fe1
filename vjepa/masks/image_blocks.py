"""Blocks of an image: the masks of I-JEPA (arXiv 2301.08243, section 3)."""

from __future__ import annotations

import math

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Int
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.layers import cross_masks
from vjepa.masks.base import MaskStrategy, Surplus, take_ids
from vjepa.types import MaskPair, TokenGrid

MAX_DRAWS = 1000  # of a clip's blocks, until they leave enough to see
SMALL_SHARE = 10  # a grid of fewer than SMALL_SHARE * min_keep sites has to keep that share of them
Size = tuple[int, int]


class ImageBlocks(MaskStrategy):
    """Hides a few small blocks and shows a large one less all of them; sizes are drawn once a batch.

    An image is a clip of one frame; in longer clips the blocks are tubes through all of it.

    Args:
        num_targets: Target blocks an image. Objectives that can predict each by itself do so, else their union.
        target_scale: Range of a target block's share of the image.
        aspect_ratio: Range of its height over its width. As published, one number draws both scale and ratio.
        context_scale: Range of the context block's share; it is square.
        min_keep: Fewest sites to see; an image with fewer is drawn again. On a small grid a tenth of its sites.
        last_place: Let blocks reach the last row and column; the released code never does.
        surplus: How rows with more tokens than the batch's smallest are cut: at "random" or at the "tail".
    """

    def __init__(
        self,
        *,
        num_targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        aspect_ratio: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        min_keep: int = 10,
        last_place: bool = True,
        surplus: Surplus = "random",
    ) -> None:
        for name, (low, high), top in (
            ("target_scale", target_scale, 1.0),
            ("aspect_ratio", aspect_ratio, math.inf),
            ("context_scale", context_scale, 1.0),
        ):
            if not 0 < low <= high <= top:
                raise SettingError(f"{name} is a range 0 < low <= high <= {top}, got ({low}, {high}).")
        if num_targets < 1:
            raise SettingError(f"num_targets must be at least 1, got {num_targets}.")
        self.num_targets = num_targets
        self.target_scale = target_scale
        self.aspect_ratio = aspect_ratio
        self.context_scale = context_scale
        self.min_keep = min_keep
        self.last_place = last_place
        self.surplus = surplus

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """Draw block sizes for the batch, then blocks for each image; the target is the union of its blocks."""
        seen, blocks = self.place(grid, self.block_sizes(grid, generator), batch_size, generator)
        return MaskPair(
            context=self.ids(seen, grid, generator), target=self.ids(blocks.any(1), grid, generator)
        )

    def sample_apart(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        """As `sample`, with `num_targets * batch_size` rows: a block each, all with the context of their image."""
        seen, blocks = self.place(grid, self.block_sizes(grid, generator), batch_size, generator)
        context = self.ids(seen, grid, generator)
        return cross_masks([context], [self.ids(block, grid, generator) for block in blocks.unbind(1)])

    def block_sizes(self, grid: TokenGrid, generator: torch.Generator) -> tuple[Size, Size]:
        """Sizes (h, w) in tokens of the target blocks and of the context block; never a whole side of the image."""
        if min(grid.h, grid.w) < 2:
            raise SettingError(
                f"image blocks need 2 tokens a side, got {grid.h} x {grid.w}. Use larger images or smaller patches."
            )
        u_target, u_context = torch.rand(2, generator=generator).tolist()
        aspect = _between(self.aspect_ratio, u_target)
        target = _size(grid, _between(self.target_scale, u_target), aspect)
        return target, _size(grid, _between(self.context_scale, u_context), 1.0)

    def place(
        self, grid: TokenGrid, sizes: tuple[Size, Size], batch_size: int, generator: torch.Generator
    ) -> tuple[Bool[Tensor, "b h w"], Bool[Tensor, "b m h w"]]:
        """Sites of the context, less all target blocks, and of each target block.

        The published code keeps an image's target blocks and draws its context block again, in the end over
        targets; here both are drawn again, so that what is predicted is never seen.

        Raises:
            ValueError: If an image's blocks never leave `min_keep` sites to see.
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
        """Ids of chosen sites at all times, cut to the smallest row."""
        chosen = repeat(sites, "b h w -> b (t h w)", t=grid.t)
        return take_ids(chosen, int(chosen.sum(1).min()), self.surplus, generator)

    def _draw(
        self, grid: TokenGrid, sizes: tuple[Size, Size], rows: int, generator: torch.Generator
    ) -> Bool[Tensor, "b m h w"]:
        """Sites of the blocks of `rows` images: the targets, then the context block."""
        target, context = sizes
        height, width = torch.tensor([target] * self.num_targets + [context]).unbind(-1)
        more = int(self.last_place)
        places = torch.stack([grid.h - height + more, grid.w - width + more], dim=-1)  # top, left
        # one call for all blocks, yet the stream of a call per number: r mod lcm mod n == r mod n
        draws = torch.randint(
            math.lcm(*places.flatten().tolist()), (rows, *places.shape), generator=generator
        )
        top, left = (draws % places).unbind(-1)
        down = _inside(top, height, grid.h)
        return down[..., :, None] & _inside(left, width, grid.w)[..., None, :]


def _size(grid: TokenGrid, scale: float, aspect: float) -> Size:
    area = int(grid.h * grid.w * scale)
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return max(1, min(height, grid.h - 1)), max(1, min(width, grid.w - 1))


def _between(interval: tuple[float, float], u: float) -> float:
    low, high = interval
    return low + u * (high - low)


def _inside(start: Int[Tensor, "b m"], extent: Int[Tensor, "m"], length: int) -> Bool[Tensor, "b m {length}"]:
    """Which of `length` places lie in [start, start + extent)."""
    places = torch.arange(length)
    return (places >= start[..., None]) & (places < (start + extent)[..., None])
