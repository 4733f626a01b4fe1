"""Prediction of hidden tokens in latent space: V-JEPA (arXiv 2404.08471) and V-JEPA 2 (arXiv 2506.09985)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vjepa.layers import gather_tokens
from vjepa.masks import MaskStrategy
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives.base import Objective, mean_distance
from vjepa.optim import EmaPair
from vjepa.types import ClipBatch, LossOutput, MaskPair, TokenGrid


class LatentPrediction(Objective):
    """L1 between predicted and layer-normed target embeddings; targets come from a moving average.

    Args:
        encoder: The context encoder; the target encoder starts as its copy.
        predictor: Builds the predictor from the encoder's width.
        masks: Mask strategies; the loss is the mean over them, and mask token i stands for the tokens hidden by
            strategy i.
        loss_exp: Exponent p of the loss `mean(|z - h| ** p) / p`.
    """

    def __init__(
        self,
        *,
        encoder: VideoEncoder,
        predictor: Callable[[int], Predictor],
        masks: list[MaskStrategy],
        loss_exp: float = 1.0,
    ) -> None:
        super().__init__()
        if not masks:
            raise ValueError("masks is empty: name at least one mask strategy, e.g. vjepa.masks.TubeBlocks.")
        self.context_encoder = encoder.train()  # one that was loaded comes in eval mode
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = predictor(encoder.embed_dim).train()
        self.masks = masks
        self.loss_exp = loss_exp

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
        pairs = [m.sample(grid, len(batch), generator).to(batch.video.device) for m in self.masks]
        targets = self.targets(batch.video)
        hidden = [gather_tokens(targets, pair.target) for pair in pairs]
        predictions = [self.predict(batch.video, pair, grid, i) for i, pair in enumerate(pairs)]
        losses = [self.distance(z, h) for z, h in zip(predictions, hidden, strict=True)]
        return LossOutput(
            loss=torch.stack(losses).mean(),
            metrics={f"loss_mask{i}": loss.detach() for i, loss in enumerate(losses)},
            predictions=torch.cat([z.detach().flatten(0, 1) for z in predictions]),
            targets=torch.cat([h.flatten(0, 1) for h in hidden]),
            masks=tuple(pairs),
            grid=grid,
        )

    @torch.no_grad()
    def targets(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """Embeddings of all tokens by the target encoder, layer-normed without weights (eps 1e-5)."""
        tokens = self.target_encoder(video)
        return F.layer_norm(tokens.float(), tokens.shape[-1:])

    def predict(
        self, video: Float[Tensor, "b c t h w"], pair: MaskPair, grid: TokenGrid, mask_token: int
    ) -> Float[Tensor, "b nt d"]:
        """Predicted embeddings of the hidden tokens, from the visible tokens alone."""
        context = self.context_encoder(video, keep=pair.context)
        return self.predictor(context, pair.context, pair.target, grid=grid, mask_token=mask_token)

    def distance(
        self, predictions: Float[Tensor, "b n d"], targets: Float[Tensor, "b n d"]
    ) -> Float[Tensor, ""]:
        """Mean of |z - h| ** p / p, in fp32, p being `loss_exp`."""
        return mean_distance(predictions, targets, self.loss_exp)
