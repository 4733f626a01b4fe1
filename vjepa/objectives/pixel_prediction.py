"""Reconstruction of pixels: the baseline that predicts what it hides instead of what it means.

After VideoMAE (arXiv 2203.12602), on the encoders, masks and loop of latent prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vjepa.masks import MaskStrategy
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives.base import (
    Objective,
    checked_masks,
    draw_pairs,
    predict_hidden,
    summed_up,
    tokens_at,
)
from vjepa.optim import EmaPair
from vjepa.types import ClipBatch, LossOutput, TokenGrid

EPS = 1e-6  # on the standard deviation of a patch's pixels


class PixelPrediction(Objective):
    """Mean square error of the pixels of hidden tubelets, from the visible ones; there is no moving average.

    Args:
        encoder: Sees the visible tubelets, and is the encoder to use afterwards.
        predictor: Builds the decoder from the encoder's width; its `out_dim`, the pixels of a tubelet, is filled in.
        masks: Mask strategies; the loss is the mean over them, and mask token i stands for the tokens hidden by
            strategy i.
        normalize: Shift and scale the pixels of each tubelet and colour to mean 0 and deviation 1.
    """

    def __init__(
        self,
        *,
        encoder: VideoEncoder,
        predictor: Callable[[int], Predictor],
        masks: list[MaskStrategy],
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.masks = checked_masks(masks)
        self.context_encoder = self.target_encoder = encoder.train()
        weight = encoder.patch_embed.proj.weight
        build = cast("Any", predictor)  # jsonargparse's partial takes the rest of the arguments too
        self.predictor = build(encoder.embed_dim, out_dim=weight[0].numel()).train()
        self.normalize = normalize

    def ema_pairs(self) -> list[EmaPair]:
        """None: the targets are pixels."""
        return []

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """See `Objective.forward`. Logs the loss of each mask strategy as `loss_mask<i>`."""
        networks = (self.context_encoder, self.predictor)
        grid = self.context_encoder.grid_of(batch.video)
        pairs = draw_pairs(self.masks, grid, batch, generator)
        targets = self.targets(batch.video, grid)
        hidden = [tokens_at(targets, pair.target) for pair in pairs]
        predictions = [
            predict_hidden(*networks, batch.video, pair, grid=grid, mask_token=i)
            for i, pair in enumerate(pairs)
        ]
        losses = [F.mse_loss(z.float(), h) for z, h in zip(predictions, hidden, strict=True)]
        return summed_up(losses, predictions, hidden, pairs, grid)

    def targets(self, video: Float[Tensor, "b c t h w"], grid: TokenGrid) -> Float[Tensor, "b n pixels"]:
        """Pixels of all tubelets, as (frame, row, column, colour)."""
        pixels = self._cut(video, grid).float()
        if self.normalize:
            pixels = (pixels - pixels.mean(dim=2, keepdim=True)) / (pixels.std(dim=2, keepdim=True) + EPS)
        return rearrange(pixels, "b n p c -> b n (p c)")

    def _cut(self, video: Tensor, grid: TokenGrid) -> Float[Tensor, "b n p c"]:
        tubelet, patch, _ = self.context_encoder.patch_embed.proj.kernel_size
        video = video[:, :, : grid.t * tubelet, : grid.h * patch, : grid.w * patch]
        if video.shape[2] < tubelet:  # the encoder holds the last frame of a short clip
            video = F.pad(video, (0, 0, 0, 0, 0, tubelet - video.shape[2]), mode="replicate")
        return rearrange(video, "b c (t p) (h q) (w r) -> b (t h w) (p q r) c", p=tubelet, q=patch, r=patch)
