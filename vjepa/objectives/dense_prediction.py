"""Dense prediction with deep supervision: V-JEPA 2.1 (arXiv 2603.14482).

Several levels of the encoder are predicted, and not only where tokens are hidden: the context is predicted too,
the more so the nearer it is to what is hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.layers import gather_tokens
from vjepa.masks import MaskStrategy
from vjepa.models import Predictor, VideoEncoder
from vjepa.models.predictor import Modality
from vjepa.objectives.base import Objective, checked_masks, layer_normed, mean_distance, summed_up
from vjepa.optim import EmaPair, Schedule
from vjepa.types import ClipBatch, LossOutput, MaskPair, TokenGrid


class DensePrediction(Objective):
    """L1 between predicted and layer-normed levels of the target encoder, at hidden tokens and at the context.

    The loss is `L(hidden) + weight * L(context)`; in the second a token at distance d of the nearest hidden one, in
    tokens, counts 1 / sqrt(d). The published weight rises from 0 between steps 15,000 and 30,000; third-party notes
    say to 0.5 for clips and 0.7 for images.

    Args:
        encoder: The context encoder, with `levels`; the target encoder starts as its copy.
        predictor: Builds the predictor from the encoder's width, with `num_levels` as many.
        masks: Mask strategies; the loss is the mean over them, and mask token i stands for the tokens hidden by
            strategy i.
        context_weight: Weight of the context's loss in clips, by step.
        image_context_weight: The same in images, which are clips of one frame; None for that of clips.
        distance_side: Side of a grid in which distances are counted in tokens; in one k times as high they are
            divided by k (16 as published, for training at higher resolution). None for tokens everywhere.
    """

    def __init__(
        self,
        *,
        encoder: VideoEncoder,
        predictor: Callable[[int], Predictor],
        masks: list[MaskStrategy],
        context_weight: Schedule,
        image_context_weight: Schedule | None = None,
        distance_side: int | None = None,
    ) -> None:
        super().__init__()
        self.masks = checked_masks(masks)
        self.context_encoder = encoder.train()
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = predictor(encoder.embed_dim).train()
        if not encoder.levels or self.predictor.num_levels != len(encoder.levels):
            raise SettingError(
                f"the encoder has levels {encoder.levels}, the predictor num_levels {self.predictor.num_levels}. "
                "Give the encoder levels, the last block among them, and the predictor as many."
            )
        self.schedules: dict[Modality, Schedule] = {
            "video": context_weight,
            "image": image_context_weight or context_weight,
        }
        self.distance_side = distance_side
        self.at_step(1, 1)  # a run that is only validated is judged by the weights of its end

    def train(self, mode: bool = True) -> DensePrediction:
        """Training mode for what is trained: the target encoder stays in eval mode, without dropped paths."""
        super().train(mode)
        self.target_encoder.eval()
        return self

    def ema_pairs(self) -> list[EmaPair]:
        """The target encoder follows the context encoder."""
        return [(self.target_encoder, self.context_encoder)]

    def at_step(self, step: int, total_steps: int) -> None:
        """Set the weight of the context's loss."""
        self.weights = {k: schedule.value(step, total_steps) for k, schedule in self.schedules.items()}

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """See `Objective.forward`. Logs `loss_mask<i>`, and means over masks `loss_hidden`, `loss_context`."""
        video, modality = batch.video, _modality(batch.video)
        grid = self.context_encoder.grid_of(video)
        pairs = [m.sample(grid, len(batch), generator).to(video.device) for m in self.masks]
        targets = self.targets(video)
        hidden = [gather_tokens(targets, pair.target) for pair in pairs]
        seen = [gather_tokens(targets, pair.context) for pair in pairs]
        predictions = [self.predict(video, pair, grid, i) for i, pair in enumerate(pairs)]
        at_hidden = [mean_distance(z, h, 1.0) for (z, _), h in zip(predictions, hidden, strict=True)]
        at_context = [
            weighted_distance(z, h, context_weights(pair, grid, self.distance_side))
            for (_, z), h, pair in zip(predictions, seen, pairs, strict=True)
        ]
        losses = [a + self.weights[modality] * b for a, b in zip(at_hidden, at_context, strict=True)]
        output = summed_up(losses, [z for z, _ in predictions], hidden, pairs, grid)
        for name, parts in (("loss_hidden", at_hidden), ("loss_context", at_context)):
            output.metrics[name] = torch.stack(parts).mean().detach()
        return output

    @torch.no_grad()
    def targets(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n levels_d"]:
        """All levels of the target encoder side by side, each layer-normed without weights (eps 1e-5)."""
        levels = self.target_encoder.forward_intermediates(video, self.target_encoder.levels)
        return torch.cat([layer_normed(level) for level in levels], dim=-1)

    def predict(
        self, video: Float[Tensor, "b c t h w"], pair: MaskPair, grid: TokenGrid, mask_token: int
    ) -> tuple[Float[Tensor, "b nt levels_d"], Float[Tensor, "b nc levels_d"]]:
        """Predicted levels of the hidden tokens, and of the context, from the visible tokens alone."""
        encoder = self.context_encoder
        context = torch.cat(encoder.forward_intermediates(video, encoder.levels, pair.context), dim=-1)
        return self.predictor.forward_dense(
            context, pair.context, pair.target, grid=grid, mask_token=mask_token, modality=_modality(video)
        )


def context_weights(
    pair: MaskPair, grid: TokenGrid, distance_side: int | None = None
) -> Float[Tensor, "b nc"]:
    """One over the square root of each context token's distance, in (t, h, w), to the nearest hidden token.

    >>> row = MaskPair(context=torch.tensor([[0, 1]]), target=torch.tensor([[2, 3]]))
    >>> context_weights(row, TokenGrid(t=1, h=1, w=4)).square().tolist()  # distances 2 and 1
    [[0.5, 1.0]]
    """
    seen, hidden = _places(pair.context, grid), _places(pair.target, grid)
    # not by matrix products: their error would be felt in distances of 1
    distance = torch.cdist(seen, hidden, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=2)
    if distance_side is not None:
        distance = distance / max(grid.h // distance_side, 1)
    return distance.rsqrt()


def weighted_distance(
    predictions: Float[Tensor, "b n d"], targets: Float[Tensor, "b n d"], weights: Float[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Mean of |z - h|, tokens weighted, in fp32; weights below 1 make it smaller."""
    return ((predictions.float() - targets).abs().mean(dim=-1) * weights).mean()


def _places(ids: Int[Tensor, "b k"], grid: TokenGrid) -> Float[Tensor, "b k 3"]:
    area = grid.h * grid.w
    axes = torch.stack([ids // area, ids % area // grid.w, ids % grid.w])
    return rearrange(axes, "axes b k -> b k axes").float()


def _modality(video: Tensor) -> Modality:
    return "image" if video.shape[2] == 1 else "video"
