"""Dense prediction with deep supervision: V-JEPA 2.1 (arXiv 2603.14482).

Several levels of the encoder are predicted, at the hidden tokens and at the context. A context token has the more
weight the nearer it is to a hidden one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.layers import gather_tokens
from vjepa.layers.position import token_coordinates
from vjepa.masks import MaskStrategy
from vjepa.masks.base import checked
from vjepa.models import Predictor, VideoEncoder
from vjepa.models.predictor import Modality
from vjepa.objectives.base import layer_normed, mean_distance
from vjepa.objectives.masked import MaskedObjective, as_loss_output
from vjepa.optim import Schedule
from vjepa.types import ClipBatch, LossOutput, MaskPair, TokenGrid


class DensePrediction(MaskedObjective):
    """L1 between predicted and layer-normed levels of the target encoder, at hidden tokens and at the context.

    The loss is `L(hidden) + weight * L(context)`; in the second a token at distance d (in tokens) from the nearest
    hidden one has weight 1 / sqrt(d). The published weight rises from 0 between steps 15,000 and 30,000; third-party
    notes say to 0.5 for clips and 0.7 for images.

    Args:
        encoder: The context encoder, with `levels`; the target encoder starts as its copy.
        predictor: Builds the predictor from the encoder's width, with as many `num_levels`.
        masks: Mask strategies; the loss is the mean over them, and mask token i stands for the tokens hidden by
            strategy i.
        context_weight: Weight of the context's loss in clips, by step.
        image_context_weight: The same in images, which are clips of one frame; None for the weight in clips.
        distance_side: Height of a grid in which distances are counted in tokens. In a grid k times as high they are
            divided by k (16 as published, for training at higher resolution). None to count tokens in every grid.
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
        super().__init__(encoder=encoder, predictor=predictor, masks=masks, moving_average=True)
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
        self.set_step(1, 1)  # a run that is only validated uses the final weights

    def set_step(self, step: int, total_steps: int) -> None:
        """Set the weight of the context's loss."""
        self.weights = {k: schedule.value(step, total_steps) for k, schedule in self.schedules.items()}

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """See `Objective.forward`. Logs `loss_mask<i>`, and the means over masks `loss_hidden` and `loss_context`."""
        video, modality = batch.video, _modality(batch.video)
        grid = self.context_encoder.grid_of(video)
        drawn = ((mask, mask.sample(grid, len(batch), generator)) for mask in self.masks)
        pairs = [checked(pair, mask, grid).to(video.device) for mask, pair in drawn]
        targets = self.targets(video)
        hidden = [gather_tokens(targets, pair.target) for pair in pairs]
        seen = [gather_tokens(targets, pair.context) for pair in pairs]
        predictions = [self.predict_levels(video, pair, grid, i) for i, pair in enumerate(pairs)]
        at_hidden = [mean_distance(z, h, 1.0) for (z, _), h in zip(predictions, hidden, strict=True)]
        at_context = [
            weighted_distance(z, h, context_weights(pair, grid, self.distance_side))
            for (_, z), h, pair in zip(predictions, seen, pairs, strict=True)
        ]
        losses = [a + self.weights[modality] * b for a, b in zip(at_hidden, at_context, strict=True)]
        output = as_loss_output(losses, [z for z, _ in predictions], hidden, (grid, pairs))
        for name, parts in (("loss_hidden", at_hidden), ("loss_context", at_context)):
            output.metrics[name] = torch.stack(parts).mean().detach()
        return output

    @torch.no_grad()
    def targets(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n levels_d"]:
        """Return all levels of the target encoder side by side, each layer-normed without weights (eps 1e-5)."""
        levels = self.target_encoder.forward_intermediates(video, self.target_encoder.levels)
        return torch.cat([layer_normed(level) for level in levels], dim=-1)

    def predict_levels(
        self, video: Float[Tensor, "b c t h w"], pair: MaskPair, grid: TokenGrid, mask_token: int
    ) -> tuple[Float[Tensor, "b nt levels_d"], Float[Tensor, "b nc levels_d"]]:
        """Return predicted levels of the hidden tokens, and of the context, from the visible tokens alone."""
        encoder = self.context_encoder
        context = torch.cat(encoder.forward_intermediates(video, encoder.levels, pair.context), dim=-1)
        return self.predictor.forward_dense(
            context, pair.context, pair.target, grid=grid, mask_token=mask_token, modality=_modality(video)
        )


def context_weights(
    pair: MaskPair, grid: TokenGrid, distance_side: int | None = None
) -> Float[Tensor, "b nc"]:
    """Return one over the square root of each context token's distance, in (t, h, w), to the nearest hidden token.

    >>> row = MaskPair(context=torch.tensor([[0, 1]]), target=torch.tensor([[2, 3]]))
    >>> context_weights(row, TokenGrid(t=1, h=1, w=4)).square().tolist()  # distances 2 and 1
    [[0.5, 1.0]]
    """
    seen, hidden = (
        torch.stack(token_coordinates(ids, grid), dim=-1).float() for ids in (pair.context, pair.target)
    )
    # matrix products would be too inexact for distances of 1
    distance = torch.cdist(seen, hidden, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=2)
    if distance_side is not None:
        distance = distance / max(grid.h // distance_side, 1)
    return distance.rsqrt()


def weighted_distance(
    predictions: Float[Tensor, "b n d"], targets: Float[Tensor, "b n d"], weights: Float[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Return the mean of |z - h|, weighted per token, in fp32. The weights are not normalised."""
    return ((predictions.float() - targets).abs().mean(dim=-1) * weights).mean()


def _modality(video: Tensor) -> Modality:
    return "image" if video.shape[2] == 1 else "video"
