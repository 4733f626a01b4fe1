"""The video encoder: a vision transformer over tubelets, with additive or rotary positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.layers import (
    LAYER_NORM_EPS,
    Block,
    RotaryStyle,
    RotaryTables,
    gather_tokens,
    init_weights,
    rescale_blocks,
    rotary_3d,
    sincos_2d,
    sincos_3d,
)
from vjepa.models.files import save_folder
from vjepa.models.tubelet import TubeletEmbed
from vjepa.types import TokenGrid

Position = Literal["sincos", "sincos_plain", "rope", "rope_interleaved"]
ROTARY_STYLES: dict[str, RotaryStyle] = {"rope": "tiled", "rope_interleaved": "interleaved"}


class VideoEncoder(nn.Module):
    """Vision transformer over a clip's tubelets (V-JEPA, arXiv 2404.08471; V-JEPA 2, arXiv 2506.09985).

    It takes clips of any length and shape, whole or as chosen tokens, and knows nothing of masks as a policy.
    An image is a clip of one frame.

    Args:
        img_size: Height and width of the native clip in pixels; one number for a square.
        patch_size: Side of a patch, in pixels.
        num_frames: Frames of the native clip; 1 makes an image encoder (2-D positions, one frame a tubelet).
        tubelet_size: Frames of a tubelet.
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over `embed_dim`.
        position: "rope" turns queries and keys as V-JEPA 2 does, "rope_interleaved" by a true rotation;
            "sincos" adds a table with equal widths an axis as V-JEPA does, "sincos_plain" one that gives
            time half of the channels.
        short_clips: What an additive table does for fewer frames than native at native height and width:
            "interpolate" it (V-JEPA) or take its "first" rows (V-JEPA 2).
        drop_path: Probability of skipping a branch, rising linearly from 0 at the first block.
    """

    pos_embed: Tensor  # (1, N, D), of additive positions only

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_frames: int = 16,
        tubelet_size: int = 2,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        position: Position = "rope",
        short_clips: Literal["interpolate", "first"] = "interpolate",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        tubelet_size = min(tubelet_size, num_frames)
        self.native_grid = TokenGrid(
            t=num_frames // tubelet_size, h=height // patch_size, w=width // patch_size
        )
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.position, self.short_clips = position, short_clips
        self.patch_embed = TubeletEmbed(patch_size=patch_size, tubelet_size=tubelet_size, embed_dim=embed_dim)
        if position.startswith("sincos"):
            self.register_buffer("pos_embed", self._table(num_frames).float()[None])
        self.blocks = nn.ModuleList(
            Block(embed_dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, drop_path=rate)
            for rate in torch.linspace(0, drop_path, depth, device="cpu").tolist()
        )
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.apply(init_weights)
        rescale_blocks(self.blocks)

    @property
    def num_parameters(self) -> int:
        """Number of weights, tables of positions not counted."""
        return sum(p.numel() for p in self.parameters())

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write weights and config to a folder that `vjepa.load_encoder` opens; returns the folder."""
        return save_folder(folder, self)

    def grid_of(self, video: Float[Tensor, "b c t h w"]) -> TokenGrid:
        """Extent in tokens of a clip (B, C, T, H, W)."""
        return self.patch_embed.grid_of(video)

    def forward(
        self, video: Float[Tensor, "b c t h w"], keep: Int[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Encode a clip, or only some of its tokens.

        Args:
            video: Normalised clip (B, C, T, H, W).
            keep: Ids (B, K) of the tokens to encode; the rest of the clip is not looked at. None keeps all.

        Returns:
            Tokens (B, N, D), time slowest, or (B, K, D) in the order of `keep`.
        """
        return self.forward_intermediates(video, indices=[len(self.blocks) - 1], keep=keep)[0]

    def forward_intermediates(
        self,
        video: Float[Tensor, "b c t h w"],
        indices: Sequence[int],
        keep: Int[Tensor, "b k"] | None = None,
    ) -> list[Float[Tensor, "b n d"]]:
        """Tokens after the blocks named by `indices` (0-based, ascending; negative from the end), normed.

        Every level goes through the one final norm, as in the released multi-level probes.
        """
        depth = len(self.blocks)
        wanted = {i % depth for i in indices if -depth <= i < depth}
        if len(wanted) != len(indices):
            raise ValueError(f"indices name blocks 0..{depth - 1} once each, got {list(indices)}.")
        grid = self.grid_of(video)
        tokens = self._place(self.patch_embed(video, keep), grid, keep)
        rotary = self._rotary(grid, keep, tokens.device)
        levels = []
        for i, block in enumerate(self.blocks[: max(wanted) + 1]):
            tokens = block(tokens, rotary)
            if i in wanted:
                levels.append(self.norm(tokens))
        return levels

    def _place(self, tokens: Tensor, grid: TokenGrid, keep: Tensor | None) -> Tensor:
        if not self.position.startswith("sincos"):
            return tokens
        table = self._positions(grid)
        if keep is not None:
            table = gather_tokens(table.expand(len(keep), -1, -1), keep)
        return tokens + table

    def _rotary(self, grid: TokenGrid, keep: Tensor | None, device: torch.device) -> RotaryTables | None:
        """Tables of one forward, shared by all blocks."""
        if self.position not in ROTARY_STYLES:
            return None
        ids = torch.arange(len(grid), device=device)[None] if keep is None else keep
        return rotary_3d(ids, grid, self.embed_dim // self.num_heads, ROTARY_STYLES[self.position])

    def _table(self, num_frames: int) -> Float[Tensor, "n d"]:
        if num_frames == 1:
            return sincos_2d(self.native_grid, self.embed_dim)
        return sincos_3d(self.native_grid, self.embed_dim, uniform_power=self.position == "sincos")

    def _positions(self, grid: TokenGrid) -> Float[Tensor, "1 n d"]:
        """Table of positions (1, N, D) for a clip of any shape, made from the native one."""
        native, table = self.native_grid, self.pos_embed
        if grid == native:
            return table
        same_plane = (grid.h, grid.w) == (native.h, native.w)
        if self.short_clips == "first" and same_plane and grid.t < native.t:
            return table[:, : len(grid)]
        cube = rearrange(table, "1 (t h w) d -> 1 d t h w", t=native.t, h=native.h, w=native.w)
        if native.t == 1 and grid.t == 1:
            scale = math.sqrt(grid.h * grid.w / (native.h * native.w))  # as released: one scale for both axes
            resized = _bicubic(rearrange(cube, "1 d 1 h w -> 1 d h w"), grid, scale)
            return rearrange(resized, "1 d h w -> 1 (h w) d")
        scales = (grid.t / native.t, grid.h / native.h, grid.w / native.w)
        cube = F.interpolate(cube, scale_factor=scales, mode="trilinear")
        assert tuple(cube.shape[2:]) == (grid.t, grid.h, grid.w), (cube.shape, grid)
        return rearrange(cube, "1 d t h w -> 1 (t h w) d")


def _bicubic(table: Float[Tensor, "1 d h w"], grid: TokenGrid, scale: float) -> Float[Tensor, "1 d h2 w2"]:
    """The table at a new size: by `scale` where that gives the grid (square images), else by size."""
    resized = F.interpolate(table, scale_factor=scale, mode="bicubic")
    if tuple(resized.shape[2:]) == (grid.h, grid.w):
        return resized
    return F.interpolate(table, size=(grid.h, grid.w), mode="bicubic")
