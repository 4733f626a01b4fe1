"""Prediction of hidden tokens in latent space: V-JEPA (arXiv 2404.08471), V-JEPA 2 (arXiv 2506.09985) and I-JEPA.

I-JEPA (arXiv 2301.08243) is the case of an image encoder, masks `ImageBlocks` and `loss_exp="smooth"`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.masks import MaskStrategy
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives.base import (
    Objective,
    checked_masks,
    draw_pairs,
    layer_normed,
    mean_distance,
    predict_hidden,
    summed_up,
    tokens_at,
)
from vjepa.optim import EmaPair
from vjepa.types import ClipBatch, LossOutput, MaskPair, TokenGrid


class LatentPrediction(Objective):
    """L1 between predicted and layer-normed target embeddings; targets come from a moving average.

    Args:
        encoder: The context encoder; the target encoder starts as its copy.
        predictor: Builds the predictor from the encoder's width.
        masks: Mask strategies; the loss is the mean over them, and mask token i stands for the tokens hidden by
            strategy i.
        loss_exp: Exponent p of the loss `mean(|z - h| ** p) / p`; "smooth" for half squares below a distance of 1
            and the distance less a half above (I-JEPA).
        frame_counts: Frame counts of the data, in order. Where given, mask token i stands for all that is hidden
            in clips of the i-th count, whatever hides it, as V-JEPA 2 was trained.
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
        super().__init__()
        self.masks = checked_masks(masks)
        self.context_encoder = encoder.train()  # one that was loaded comes in eval mode
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = predictor(encoder.embed_dim).train()
        self.loss_exp = loss_exp
        self.frame_counts = frame_counts

    def train(self, mode: bool = True) -> LatentPrediction:
        """Training mode for what is trained: the target encoder stays in eval mode, without dropped paths."""
        super().train(mode)
        self.target_encoder.eval()
        return self

    def ema_pairs(self) -> list[EmaPair]:
        """The target encoder follows the context encoder."""
        return [(self.target_encoder, self.context_encoder)]

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """See `Objective.forward`. Logs the loss of each mask strategy as `loss_mask<i>`."""
        grid = self.context_encoder.grid_of(batch.video)
        pairs = draw_pairs(self.masks, grid, batch, generator)
        tokens = self.mask_tokens(batch.video.shape[2])
        targets = self.targets(batch.video)
        hidden = [tokens_at(targets, pair.target) for pair in pairs]
        predictions = [
            self.predict(batch.video, pair, grid, i) for pair, i in zip(pairs, tokens, strict=True)
        ]
        losses = [self.distance(z, h) for z, h in zip(predictions, hidden, strict=True)]
        return summed_up(losses, predictions, hidden, pairs, grid)

    def mask_tokens(self, num_frames: int) -> list[int]:
        """Which mask token goes with each strategy in clips of `num_frames`."""
        if not self.frame_counts:
            return list(range(len(self.masks)))
        if num_frames not in self.frame_counts:
            raise SettingError(
                f"clips of {num_frames} frames; frame_counts {self.frame_counts} has no mask token for them. "
                "Add their count to frame_counts, or leave it out."
            )
        return [self.frame_counts.index(num_frames)] * len(self.masks)

    @torch.no_grad()
    def targets(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """Embeddings of all tokens by the target encoder, layer-normed without weights (eps 1e-5)."""
        return layer_normed(self.target_encoder(video))

    def predict(
        self, video: Float[Tensor, "b c t h w"], pair: MaskPair, grid: TokenGrid, mask_token: int
    ) -> Float[Tensor, "rows nt d"]:
        """Predicted embeddings of the hidden tokens, from the visible tokens alone."""
        networks = (self.context_encoder, self.predictor)
        return predict_hidden(*networks, video, pair, grid=grid, mask_token=mask_token)

    def distance(
        self, predictions: Float[Tensor, "b n d"], targets: Float[Tensor, "b n d"]
    ) -> Float[Tensor, ""]:
        """Mean distance in fp32, by `loss_exp`."""
        if self.loss_exp == "smooth":
            return F.smooth_l1_loss(predictions.float(), targets)
        return mean_distance(predictions, targets, float(self.loss_exp))
