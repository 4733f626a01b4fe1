"""Latent prediction without a moving average: penalties keep the features from collapsing (LeJEPA, VICReg).

Sources: LeJEPA (arXiv 2511.08544), VICReg (arXiv 2105.04906). Their losses are on images; here they are on the
tokens of clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.masks import MaskStrategy
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives.base import mean_distance
from vjepa.objectives.masked import MaskedObjective
from vjepa.objectives.regularizers import Penalty
from vjepa.types import ClipBatch, LossOutput


class RegularizedPrediction(MaskedObjective):
    """Distance between predicted and encoded tokens of one encoder, plus penalties on what it encodes.

    Args:
        encoder: The encoder that is trained, makes the targets, and is the one to use afterwards.
        predictor: Builds the predictor from the encoder's width.
        masks: Mask strategies; the loss is the mean over them, and mask token i stands for the tokens hidden by
            strategy i.
        penalties: Terms that keep the encoder from mapping all tokens to one; at least one.
        loss_exp: Exponent p of the distance `mean(|z - h| ** p) / p`.
        stop_gradient: Move the predictions towards the targets only, not the targets towards the predictions.
        centre: Mean that is subtracted from the samples of the penalties: that of all clips at a "position", so that
            telling positions apart does not count as telling clips apart, or "none".
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
        if not penalties:
            raise SettingError(
                "penalties is empty, and without one all tokens become alike. Name vjepa.objectives.SigReg or "
                "vjepa.objectives.VarianceCovariance."
            )
        super().__init__(encoder=encoder, predictor=predictor, masks=masks, moving_average=False)
        self.penalties = penalties
        self.loss_exp, self.stop_gradient, self.centre = loss_exp, stop_gradient, centre

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """See `Objective.forward`. Logs `loss_mask<i>`, without penalties, and `penalty_<name>` of each."""
        masks = self.draw_masks(batch, generator)
        tokens = self.context_encoder(batch.video).float()
        targets = tokens.detach() if self.stop_gradient else tokens
        distance = partial(mean_distance, exponent=self.loss_exp)
        output = self.compare_hidden(batch.video, targets, masks, distance)
        with torch.autocast(batch.video.device.type, enabled=False):
            penalties = [penalty(self.samples(tokens), generator) for penalty in self.penalties]
        names = [f"penalty_{type(penalty).__name__.lower()}" for penalty in self.penalties]
        logged = {name: value.detach() for name, value in zip(names, penalties, strict=True)}
        return replace(
            output, loss=output.loss + torch.stack(penalties).sum(), metrics=output.metrics | logged
        )

    def samples(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "samples d"]:
        """Return the samples (B * N, D) of the penalties."""
        if self.centre == "position":
            tokens = tokens - tokens.mean(dim=0, keepdim=True)
        return rearrange(tokens, "b n d -> (b n) d")
