"""The video encoder: a vision transformer over tubelets, with additive or rotary positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vjepa.errors import SettingError
from vjepa.layers import (
    LAYER_NORM_EPS,
    MlpKind,
    RotaryTables,
    check_ids,
    gather_tokens,
    init_weights,
    rescale_blocks,
)
from vjepa.models.config import Network, build_blocks, check_parts, height_and_width
from vjepa.models.files import save_alone
from vjepa.models.positions import (
    MODALITY_STD,
    PRETRAIN_SIDE,
    PRETRAIN_SIDE_14,
    Position,
    is_additive,
    native_table,
    resized_table,
    rotary_tables,
)
from vjepa.models.tubelet import TubeletEmbed
from vjepa.types import TokenGrid


class VideoEncoder(Network):
    """Vision transformer over the tubelets of a clip (V-JEPA, arXiv 2404.08471; V-JEPA 2, arXiv 2506.09985).

    It encodes clips of any length and shape, or only chosen tokens of them. It does not know how masks are drawn.
    An image is a clip of one frame; an encoder with `levels` has a separate patch embedding for it.

    Args:
        img_size: Height and width of the native clip in pixels, or one number for a square.
        patch_size: Side of a patch, in pixels.
        num_frames: Frames of the native clip; 1 makes an image encoder (2-D positions, one frame per tubelet).
        tubelet_size: Frames of a tubelet.
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over `embed_dim`.
        mlp: Kind of the MLPs, see `Block`.
        position: Style of positions. "rope" turns queries and keys as V-JEPA 2 does, "rope_interleaved" by a true
            rotation. "rope_interpolated" also stretches height and width to the grid of pre-training (V-JEPA 2.1: 16
            per side, 18 with patches of 14). "rope_stored" uses frequencies stored with the weights
            (jepa-intuitive-physics). "sincos" adds a table with equal widths per axis, as V-JEPA does, and
            interpolates it for clips that are not native. "sincos_first" takes its first rows for clips that are
            only shorter (V-JEPA 2 without rotation). "sincos_plain" gives time half of the channels. "sincos_wh" is
            for images and puts width first (I-JEPA; the released encoder accepts native sizes only, this one
            interpolates).
        drop_path: Probability of skipping a branch, rising linearly from 0 at the first block.
        levels: Blocks (0-based, ascending, ending with the last) whose tokens have their own norm. If it is not
            empty, the encoder is one of V-JEPA 2.1: no shared norm, one patch embedding for clips and one for single
            frames, and a vector added to all tokens that says which.

    Attributes:
        trained_clips: The clips of the run that trained it, a `vjepa.features.ClipSpec` as JSON; None if unknown.

    Raises:
        SettingError: If an argument is not allowed, or `levels` are not ascending blocks that end with the last.
    """

    pos_embed: Tensor  # (1, N, D), of additive positions only
    trained_clips: Mapping[str, Any] | None = None

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
        mlp: MlpKind = "gelu",
        position: Position = "rope",
        drop_path: float = 0.0,
        levels: tuple[int, ...] = (),
    ) -> None:
        super().__init__(
            img_size=img_size, patch_size=patch_size, num_frames=num_frames, tubelet_size=tubelet_size,
            embed_dim=embed_dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio, mlp=mlp,
            position=position, drop_path=drop_path, levels=levels,
        )  # fmt: skip
        height, width = height_and_width(img_size)
        tubelet_size = min(tubelet_size, num_frames)
        check_parts("img_size", (height, width), "patch_size", patch_size)
        check_parts("num_frames", (num_frames,), "tubelet_size", tubelet_size)
        self.native_grid = TokenGrid(
            t=num_frames // tubelet_size, h=height // patch_size, w=width // patch_size
        )
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.position, self.levels = position, levels
        self.side = PRETRAIN_SIDE_14 if patch_size == 14 else PRETRAIN_SIDE
        self.patch_embed = TubeletEmbed(patch_size=patch_size, tubelet_size=tubelet_size, embed_dim=embed_dim)
        if is_additive(position):
            table = native_table(position, self.native_grid, embed_dim, image=num_frames == 1)
            self.register_buffer("pos_embed", table.float()[None])
        self.blocks = build_blocks(self.config)
        if levels:
            self._add_levels(depth, patch_size)
        else:
            self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.apply(init_weights)
        rescale_blocks(self.blocks)

    def _add_levels(self, depth: int, patch_size: int) -> None:
        """Add the parts of V-JEPA 2.1: a norm per level, a patch embedding for frames, a vector per modality."""
        if list(self.levels) != sorted({*self.levels, depth - 1} & {*range(depth)}):
            raise SettingError(
                f"levels must be ascending blocks that end with the last one, {depth - 1}, got {self.levels}. "
                f"Give {(depth - 1,)} or more of them."
            )
        self.patch_embed_img = TubeletEmbed(patch_size=patch_size, tubelet_size=1, embed_dim=self.embed_dim)
        self.video_mod_embed = nn.Parameter(torch.randn(1, 1, self.embed_dim) * MODALITY_STD)
        self.img_mod_embed = nn.Parameter(torch.randn(1, 1, self.embed_dim) * MODALITY_STD)
        self.norms_block = nn.ModuleList(
            nn.LayerNorm(self.embed_dim, eps=LAYER_NORM_EPS) for _ in self.levels
        )

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write weights and config to a folder that `vjepa.load_encoder` opens, and return the folder.

        Raises:
            SettingError: If the folder holds other networks, which would be taken for this encoder's.
        """
        return save_alone(folder, self)

    def grid_of(self, video: Float[Tensor, "b c t h w"]) -> TokenGrid:
        """Return the extent in tokens of a clip (B, C, T, H, W)."""
        return self.patch_embed.grid_of(video)

    def forward(
        self, video: Float[Tensor, "b c t h w"], keep: Int[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Encode a normalised clip (B, C, T, H, W) to tokens (B, N, D), time slowest.

        With ids `keep` (B, K) only these tokens are encoded, in this order. The pixels of the others are not
        multiplied.
        """
        return self.forward_intermediates(video, indices=[len(self.blocks) - 1], keep=keep)[0]

    def forward_intermediates(
        self,
        video: Float[Tensor, "b c t h w"],
        indices: Sequence[int],
        keep: Int[Tensor, "b k"] | None = None,
    ) -> list[Float[Tensor, "b n d"]]:
        """Return the normed tokens after the blocks in `indices` (0-based, ascending; negative from the end).

        Every block's tokens go through the final norm, as in the released multi-level probes. An encoder with
        `levels` has no final norm: `indices` must be among its levels, each with its own norm. The predictor of
        V-JEPA 2.1 reads the levels side by side:
        `torch.cat(encoder.forward_intermediates(video, encoder.levels, keep), dim=-1)`.

        Raises:
            SettingError: If a block is named twice, does not exist or has no norm.
        """
        wanted = self._wanted(indices)
        tokens = self.embed(video, keep)
        rotary = self.rotary(self.grid_of(video), keep, tokens.device)
        outputs = []
        for i, block in enumerate(self.blocks[: max(wanted) + 1]):
            tokens = block(tokens, rotary[i])
            if i in wanted:
                outputs.append(self._norm_of(i)(tokens))
        return outputs

    def embed(
        self, video: Float[Tensor, "b c t h w"], keep: Int[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return the input of the first block: embedded tubelets, plus positions if they are additive."""
        grid = self.grid_of(video)
        if keep is not None:
            check_ids(keep, "keep", rows=len(video), length=len(grid))
        if not self.levels:
            tokens = self.patch_embed(video, keep)
        elif video.shape[2] == 1:
            tokens = self.patch_embed_img(video, keep) + self.img_mod_embed
        else:
            tokens = self.patch_embed(video, keep) + self.video_mod_embed
        return self._place(tokens, grid, keep)

    def forward_blocks(
        self,
        tokens: Float[Tensor, "b n d"],
        first: int,
        last: int,
        *,
        grid: TokenGrid,
        keep: Int[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Run blocks `first` to `last - 1` (0-based), without a norm.

        `tokens` are the output of `embed`, or of the block before; `keep` their ids, if they are not all of the clip.
        """
        rotary = self.rotary(grid, keep, tokens.device)
        for i in range(first, last):
            tokens = self.blocks[i](tokens, rotary[i])
        return tokens

    def _wanted(self, indices: Sequence[int]) -> set[int]:
        depth = len(self.blocks)
        wanted = {i % depth for i in indices if -depth <= i < depth}
        if not indices or len(wanted) != len(indices):
            raise SettingError(f"indices name blocks 0..{depth - 1} once each, got {list(indices)}.")
        if self.levels and not wanted <= set(self.levels):
            raise SettingError(
                f"blocks {self.levels} of this encoder have a norm, got indices {list(indices)}. Name some of those."
            )
        return wanted

    def _norm_of(self, block: int) -> nn.Module:
        return self.norms_block[self.levels.index(block)] if self.levels else self.norm

    def _place(self, tokens: Tensor, grid: TokenGrid, keep: Tensor | None) -> Tensor:
        if not is_additive(self.position):
            return tokens
        first = self.position == "sincos_first"
        table = resized_table(self.pos_embed, self.native_grid, grid, first=first)
        if keep is not None:
            table = gather_tokens(table.expand(len(keep), -1, -1), keep)
        return tokens + table.to(self.patch_embed.proj.weight.dtype)

    def rotary(
        self, grid: TokenGrid, keep: Tensor | None = None, device: torch.device | None = None
    ) -> list[RotaryTables | None]:
        """Return the rotary tables of each block for a clip of this extent; None with additive positions."""
        device = device or self.patch_embed.proj.weight.device
        length = (
            grid.t * grid.h * grid.w
        )  # not len(grid), which is a plain int: torch.export would fix the frames
        ids = torch.arange(length, device=device)[None] if keep is None else keep
        head_dim = self.embed_dim // self.num_heads
        return rotary_tables(self.position, ids, grid, self.blocks, head_dim=head_dim, side=self.side)
