"""Reconstruction of pixels: the baseline that predicts the hidden pixels instead of their embeddings.

After VideoMAE (arXiv 2203.12602), with the encoders, masks and training loop of latent prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vjepa.masks import MaskStrategy
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives.masked import MaskedObjective
from vjepa.types import ClipBatch, LossOutput

EPS = 1e-6  # on the standard deviation of a patch's pixels


class PixelPrediction(MaskedObjective):
    """Mean squared error of the pixels of hidden tubelets, predicted from the visible ones; no moving average.

    Args:
        encoder: Sees the visible tubelets, and is the encoder to use afterwards.
        predictor: Builds the decoder from the encoder's width; its `out_dim`, the pixels of a tubelet, is filled in.
        masks: Mask strategies; the loss is the mean over them, and mask token i stands for the tokens hidden by
            strategy i.
        normalize: Normalise the pixels of each tubelet and colour to mean 0 and standard deviation 1.
    """

    def __init__(
        self,
        *,
        encoder: VideoEncoder,
        predictor: Callable[[int], Predictor],
        masks: list[MaskStrategy],
        normalize: bool = True,
    ) -> None:
        pixels = encoder.patch_embed.proj.weight[0].numel()
        decoder = partial(cast("Any", predictor), out_dim=pixels)  # jsonargparse's partial takes it
        super().__init__(encoder=encoder, predictor=decoder, masks=masks, moving_average=False)
        self.normalize = normalize

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """See `Objective.forward`. Logs the loss of each mask strategy as `loss_mask<i>`."""
        masks = self.draw_masks(batch, generator)
        targets = self.targets(batch.video)
        return self.compare_hidden(batch.video, targets, masks, lambda z, h: F.mse_loss(z.float(), h))

    def targets(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n pixels"]:
        """Return the pixels of all tubelets, each as (frame, row, column, colour)."""
        tubelets = self.context_encoder.patch_embed.cut(video)
        pixels = rearrange(tubelets, "b n c p -> b n p c").float().contiguous()
        if self.normalize:
            pixels = (pixels - pixels.mean(dim=2, keepdim=True)) / (pixels.std(dim=2, keepdim=True) + EPS)
        return rearrange(pixels, "b n p c -> b n (p c)")
