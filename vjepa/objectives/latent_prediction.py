"""Prediction of hidden tokens in latent space: V-JEPA (arXiv 2404.08471), V-JEPA 2 (arXiv 2506.09985) and I-JEPA.

I-JEPA (arXiv 2301.08243) is the case of an image encoder, masks `ImageBlocks` and `loss_exp="smooth"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.masks import MaskStrategy
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives.base import layer_normed, mean_distance
from vjepa.objectives.masked import MaskedObjective
from vjepa.types import ClipBatch, LossOutput


class LatentPrediction(MaskedObjective):
    """L1 between predicted and layer-normed target embeddings; targets come from a moving average.

    Args:
        encoder: The context encoder; the target encoder starts as its copy.
        predictor: Builds the predictor from the encoder's width.
        masks: Mask strategies; the loss is the mean over them, and mask token i stands for the tokens hidden by
            strategy i.
        loss_exp: Exponent p of the loss `mean(|z - h| ** p) / p`; or "smooth", the smooth L1 loss of I-JEPA, which is
            quadratic below a distance of 1.
        frame_counts: Frame counts of the data, in order. If given, mask token i stands for all hidden tokens in
            clips of the i-th count, whichever strategy hides them, as V-JEPA 2 was trained.
    """

    def __init__(
        self,
        *,
        encoder: VideoEncoder,
        predictor: Callable[[int], Predictor],
        masks: list[MaskStrategy],
        loss_exp: float | Literal["smooth"] = 1.0,
        frame_counts: tuple[int, ...] = (),
    ) -> None:
        super().__init__(encoder=encoder, predictor=predictor, masks=masks, moving_average=True)
        self.loss_exp = loss_exp
        self.frame_counts = frame_counts

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """See `Objective.forward`. Logs the loss of each mask strategy as `loss_mask<i>`."""
        masks = self.draw_masks(batch, generator)
        numbers = self.mask_token_numbers(batch.video.shape[2])
        targets = self.targets(batch.video)
        return self.compare_hidden(batch.video, targets, masks, self.distance, numbers)

    def mask_token_numbers(self, num_frames: int) -> list[int]:
        """Return the number of the mask token for each strategy in clips of `num_frames`."""
        if not self.frame_counts:
            return list(range(len(self.masks)))
        if num_frames not in self.frame_counts:
            raise SettingError(
                f"clips of {num_frames} frames; frame_counts {self.frame_counts} has no mask token for them. "
                "Add their count to frame_counts, or omit it."
            )
        return [self.frame_counts.index(num_frames)] * len(self.masks)

    @torch.no_grad()
    def targets(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """Return the target encoder's embeddings of all tokens, layer-normed without weights (eps 1e-5)."""
        return layer_normed(self.target_encoder(video))

    def distance(
        self, predictions: Float[Tensor, "b n d"], targets: Float[Tensor, "b n d"]
    ) -> Float[Tensor, ""]:
        """Return the mean distance in fp32, by `loss_exp`."""
        if self.loss_exp == "smooth":
            return F.smooth_l1_loss(predictions.float(), targets)
        return mean_distance(predictions, targets, float(self.loss_exp))
