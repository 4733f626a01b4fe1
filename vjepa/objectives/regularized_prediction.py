"""Latent prediction without a moving average: penalties keep the features apart (LeJEPA, VICReg).

Sources: LeJEPA (arXiv 2511.08544), VICReg (arXiv 2105.04906). Theirs are losses of images; here they stand on the
tokens of clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.masks import MaskStrategy
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives.base import (
    Objective,
    checked_masks,
    draw_pairs,
    mean_distance,
    predict_hidden,
    summed_up,
    tokens_at,
)
from vjepa.objectives.regularizers import Penalty
from vjepa.optim import EmaPair
from vjepa.types import ClipBatch, LossOutput


class RegularizedPrediction(Objective):
    """Distance of predicted from encoded tokens, both by one encoder, and penalties on what it encodes.

    Args:
        encoder: The encoder, which is trained and makes the targets; the one to use afterwards.
        predictor: Builds the predictor from the encoder's width.
        masks: Mask strategies; the loss is the mean over them, and mask token i stands for the tokens hidden by
            strategy i.
        penalties: What keeps the encoder from making all alike; at least one.
        loss_exp: Exponent p of the distance `mean(|z - h| ** p) / p`.
        stop_gradient: Move the predictions towards the targets only, not the targets towards the predictions.
        centre: Mean that is taken off the samples of the penalties: of all clips at a "position", so that telling
            positions apart does not count as telling clips apart, or "none".
    """

    def __init__(
        self,
        *,
        encoder: VideoEncoder,
        predictor: Callable[[int], Predictor],
        masks: list[MaskStrategy],
        penalties: list[Penalty],
        loss_exp: float = 2.0,
        stop_gradient: bool = False,
        centre: Literal["position", "none"] = "position",
    ) -> None:
        super().__init__()
        if not penalties:
            raise SettingError(
                "penalties is empty, and without one all tokens become alike. Name vjepa.objectives.SigReg or "
                "vjepa.objectives.VarianceCovariance."
            )
        self.masks = checked_masks(masks)
        self.context_encoder = self.target_encoder = encoder.train()
        self.predictor = predictor(encoder.embed_dim).train()
        self.penalties = penalties
        self.loss_exp, self.stop_gradient, self.centre = loss_exp, stop_gradient, centre

    def ema_pairs(self) -> list[EmaPair]:
        """None: the encoder makes its own targets."""
        return []

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """See `Objective.forward`. Logs `loss_mask<i>`, without penalties, and `penalty_<name>` of each."""
        networks = (self.context_encoder, self.predictor)
        grid = self.context_encoder.grid_of(batch.video)
        pairs = draw_pairs(self.masks, grid, batch, generator)
        tokens = self.context_encoder(batch.video).float()
        targets = tokens.detach() if self.stop_gradient else tokens
        hidden = [tokens_at(targets, pair.target) for pair in pairs]
        predictions = [
            predict_hidden(*networks, batch.video, pair, grid=grid, mask_token=i)
            for i, pair in enumerate(pairs)
        ]
        losses = [mean_distance(z, h, self.loss_exp) for z, h in zip(predictions, hidden, strict=True)]
        output = summed_up(losses, predictions, hidden, pairs, grid)
        with torch.autocast(batch.video.device.type, enabled=False):
            penalties = [penalty(self.samples(tokens), generator) for penalty in self.penalties]
        names = [f"penalty_{type(penalty).__name__.lower()}" for penalty in self.penalties]
        logged = {name: value.detach() for name, value in zip(names, penalties, strict=True)}
        return replace(
            output, loss=output.loss + torch.stack(penalties).sum(), metrics=output.metrics | logged
        )

    def samples(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "samples d"]:
        """The tokens (B * N, D) that the penalties look at."""
        if self.centre == "position":
            tokens = tokens - tokens.mean(dim=0, keepdim=True)
        return rearrange(tokens, "b n d -> (b n) d")
