"""The predictor: from the embeddings of visible tokens to the embeddings of hidden ones."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from timm.layers import trunc_normal_
from torch import Tensor, nn

from vjepa.errors import SettingError
from vjepa.layers import LAYER_NORM_EPS, MlpKind, check_ids, gather_tokens, init_weights, rescale_blocks
from vjepa.models.config import Network, build_blocks
from vjepa.models.positions import MODALITY_STD, Position, additive_table, is_additive, rotary_tables
from vjepa.types import TokenGrid

Modality = Literal["video", "image"]


class Predictor(Network):
    """Narrow transformer over context tokens and mask tokens (V-JEPA, arXiv 2404.08471).

    For the predictor of I-JEPA (arXiv 2301.08243) give position="sincos_wh", num_mask_tokens=1, mask_token_std=0.02
    and as many heads as the encoder has.

    Args:
        encoder_dim: Width of the encoder's tokens, which are input and output.
        embed_dim: Width inside the predictor.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over `embed_dim`.
        mlp: Kind of the MLPs, see `Block`.
        position: As in `VideoEncoder`; "rope_interpolated" stretches to 16 per side for every patch size.
        num_mask_tokens: Learned vectors that stand for hidden tokens; one per mask strategy.
        mask_token_std: Standard deviation of the mask tokens at the start; 0 in the released recipes.
        drop_path: Probability of skipping a branch, rising linearly from 0 at the first block.
        num_levels: Levels of the encoder that are read and predicted, side by side in the channels. One or more
            make a predictor of V-JEPA 2.1 (arXiv 2603.14482): it distinguishes videos from images,
            `forward_dense` predicts the context too, and an MLP first mixes several levels. 0 makes a predictor of
            V-JEPA 1 or 2.
        out_dim: Width of a predicted level, if the targets come from a wider teacher; None for `encoder_dim`.

    Raises:
        SettingError: If an argument is not allowed.
    """

    def __init__(
        self,
        encoder_dim: int,
        *,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        mlp: MlpKind = "gelu",
        position: Position = "rope",
        num_mask_tokens: int = 2,
        mask_token_std: float = 0.0,
        drop_path: float = 0.0,
        num_levels: int = 0,
        out_dim: int | None = None,
    ) -> None:
        super().__init__(
            encoder_dim=encoder_dim, embed_dim=embed_dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio,
            mlp=mlp, position=position, num_mask_tokens=num_mask_tokens, mask_token_std=mask_token_std,
            drop_path=drop_path, num_levels=num_levels, out_dim=out_dim,
        )  # fmt: skip
        self.encoder_dim, self.embed_dim, self.num_heads = encoder_dim, embed_dim, num_heads
        self.position, self.num_levels = position, num_levels
        self.mask_tokens = nn.ParameterList(
            nn.Parameter(torch.zeros(1, 1, embed_dim)) for _ in range(num_mask_tokens)
        )
        self.predictor_embed = _entrance(encoder_dim, embed_dim, num_levels)
        self.predictor_blocks = build_blocks(self.config)
        self.predictor_norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        width = max(num_levels, 1) * (out_dim or encoder_dim)
        self.predictor_proj = nn.Linear(embed_dim, width)
        if num_levels:
            self.predictor_proj_context = nn.Linear(embed_dim, width)
            self.video_mod_embed = nn.Parameter(torch.randn(1, 1, embed_dim) * MODALITY_STD)
            self.img_mod_embed = nn.Parameter(torch.randn(1, 1, embed_dim) * MODALITY_STD)
        self.apply(init_weights)
        rescale_blocks(self.predictor_blocks)
        for token in self.mask_tokens:
            if mask_token_std:
                trunc_normal_(token, std=mask_token_std)

    def forward(
        self,
        context: Float[Tensor, "b nc d"],
        context_ids: Int[Tensor, "b nc"],
        target_ids: Int[Tensor, "b nt"],
        *,
        grid: TokenGrid,
        mask_token: int = 0,
        modality: Modality = "video",
    ) -> Float[Tensor, "b nt e"]:
        """Predict the embeddings of hidden tokens.

        Args:
            context: Encoded context tokens (B, Nc, D), or their levels side by side (B, Nc, levels * D).
            context_ids: Their ids.
            target_ids: Ids of the tokens to predict, in any order.
            grid: Grid that all ids refer to, `encoder.grid_of(video)`.
            mask_token: Which mask token stands for the hidden tokens, modulo the number of mask tokens.
            modality: What the clips are; only predictors of V-JEPA 2.1 use it.

        Returns:
            Predictions (B, Nt, D) in the order of `target_ids`; levels side by side.
        """
        tokens = self.forward_tokens(context, context_ids, target_ids, grid, mask_token, modality)
        return self.predictor_proj(self.predictor_norm(tokens[:, context_ids.shape[1] :]))

    def forward_dense(
        self,
        context: Float[Tensor, "b nc d"],
        context_ids: Int[Tensor, "b nc"],
        target_ids: Int[Tensor, "b nt"],
        *,
        grid: TokenGrid,
        mask_token: int = 0,
        modality: Modality = "video",
    ) -> tuple[Float[Tensor, "b nt e"], Float[Tensor, "b nc e"]]:
        """Predict the hidden tokens and, by a separate projection, the context; arguments as in `forward`.

        Raises:
            SettingError: If this is not a predictor of V-JEPA 2.1.
        """
        if not self.num_levels:
            raise SettingError(
                "this predictor has no projection for the context. Build it with num_levels=1 or more."
            )
        tokens = self.forward_tokens(context, context_ids, target_ids, grid, mask_token, modality)
        seen, hidden = tokens.split([context_ids.shape[1], target_ids.shape[1]], dim=1)
        seen, hidden = self.predictor_norm(seen), self.predictor_norm(hidden)
        return self.predictor_proj(hidden), self.predictor_proj_context(seen)

    def forward_tokens(
        self,
        context: Float[Tensor, "b nc d"],
        context_ids: Int[Tensor, "b nc"],
        target_ids: Int[Tensor, "b nt"],
        grid: TokenGrid,
        mask_token: int = 0,
        modality: Modality = "video",
    ) -> Float[Tensor, "b n p"]:
        """Return the last block's tokens (B, Nc + Nt, P): those of the context, then those of the targets."""
        if modality not in get_args(Modality):
            raise SettingError(f"modality is {modality!r}. Give one of {', '.join(get_args(Modality))}.")
        if context.shape[1] != context_ids.shape[-1]:
            raise SettingError(
                f"{context.shape[1]} context tokens, {context_ids.shape[-1]} context_ids. Give an id each."
            )
        check_ids(context_ids, "context_ids", rows=len(context), length=len(grid))
        check_ids(target_ids, "target_ids", rows=len(context), length=len(grid))
        ids = torch.cat([context_ids, target_ids], dim=1)
        seen = self.predictor_embed(context)
        hidden = self.mask_tokens[mask_token % len(self.mask_tokens)].expand(*target_ids.shape, -1)
        tokens = self._place(torch.cat([seen, hidden.to(seen.dtype)], dim=1), ids, grid)
        if self.num_levels:
            tokens = tokens + (self.img_mod_embed if modality == "image" else self.video_mod_embed)
        head_dim = self.embed_dim // self.num_heads
        rotary = rotary_tables(self.position, ids, grid, self.predictor_blocks, head_dim=head_dim)
        for block, tables in zip(self.predictor_blocks, rotary, strict=True):
            tokens = block(tokens, tables)
        return tokens

    def _place(self, tokens: Tensor, ids: Tensor, grid: TokenGrid) -> Tensor:
        if not is_additive(self.position):
            return tokens
        table = additive_table(self.position, grid, self.embed_dim).to(self.mask_tokens[0])
        return tokens + gather_tokens(table.expand(len(ids), -1, -1), ids)


def _entrance(encoder_dim: int, embed_dim: int, num_levels: int) -> nn.Module:
    """Build the map from the encoder's width to the predictor's; several levels are first mixed to one."""
    if num_levels < 2:
        return nn.Linear(encoder_dim, embed_dim)
    return nn.Sequential(
        nn.Linear(num_levels * encoder_dim, encoder_dim), nn.GELU(), nn.Linear(encoder_dim, embed_dim)
    )
