"""What an objective is: the networks of a method, its masks, and its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.layers import gather_tokens
from vjepa.masks import MaskStrategy
from vjepa.models import Predictor, VideoEncoder
from vjepa.optim import EmaPair
from vjepa.types import ClipBatch, LossOutput, MaskPair, TokenGrid


class Objective(nn.Module, ABC):
    """Owns the networks of a method and turns a batch into a loss.

    Attributes:
        context_encoder: The encoder that is trained.
        target_encoder: The encoder to use afterwards; its moving average, or itself where there is none.
        predictor: From context to targets.
        masks: What is hidden, one strategy a term of the loss.
    """

    context_encoder: VideoEncoder
    target_encoder: VideoEncoder
    predictor: Predictor
    masks: list[MaskStrategy]

    @abstractmethod
    def forward(self, batch: ClipBatch, generator: torch.Generator) -> LossOutput:
        """Loss of a batch.

        Args:
            batch: Clips, `video` (B, C, T, H, W).
            generator: Source of the masks.

        Returns:
            Loss with gradient, scalars to log, and features to judge the run's health by.
        """

    @abstractmethod
    def ema_pairs(self) -> list[EmaPair]:
        """Pairs (average, source) to update after each optimiser step."""

    def at_step(self, step: int, total_steps: int) -> None:  # noqa: B027 - most objectives do not care
        """Told before each training batch how far the run is; for weights of the loss that follow a schedule.

        Args:
            step: Optimiser steps done.
            total_steps: Optimiser steps of the run.
        """


def checked_masks(masks: list[MaskStrategy]) -> list[MaskStrategy]:
    """The strategies, at least one."""
    if not masks:
        raise SettingError("masks is empty: name at least one mask strategy, e.g. vjepa.masks.TubeBlocks.")
    return masks


def draw_pairs(
    masks: list[MaskStrategy], grid: TokenGrid, batch: ClipBatch, generator: torch.Generator
) -> list[MaskPair]:
    """A pair of ids of each strategy, on the device of the clips."""
    return [m.sample_apart(grid, len(batch), generator).to(batch.video.device) for m in masks]


def predict_hidden(
    encoder: VideoEncoder,
    predictor: Predictor,
    video: Float[Tensor, "b c t h w"],
    pair: MaskPair,
    *,
    grid: TokenGrid,
    mask_token: int,
) -> Float[Tensor, "rows nt e"]:
    """What the predictor makes of the hidden tokens from the visible ones alone.

    Args:
        encoder: Sees the context of each clip, once.
        predictor: Sees that context once for each target.
        video: Clips (B, C, T, H, W).
        pair: Ids, of B rows or of B rows a target.
        grid: Extent of the clips in tokens.
        mask_token: Which mask token stands for the hidden.
    """
    context = encoder(video, keep=pair.context[: len(video)])
    context = _to_rows(context, len(pair.context))
    return predictor(context, pair.context, pair.target, grid=grid, mask_token=mask_token)


def tokens_at(tokens: Float[Tensor, "b n d"], ids: Int[Tensor, "rows nt"]) -> Float[Tensor, "rows nt d"]:
    """The tokens that `ids` name; several targets of the same B clips follow each other in its rows."""
    return gather_tokens(_to_rows(tokens, len(ids)), ids)


def summed_up(
    losses: list[Float[Tensor, ""]],
    predictions: list[Tensor],
    targets: list[Tensor],
    pairs: list[MaskPair],
    grid: TokenGrid,
) -> LossOutput:
    """The mean over masks, the loss of each as `loss_mask<i>`, and all tokens and masks for the run's health."""
    return LossOutput(
        loss=torch.stack(losses).mean(),
        metrics={f"loss_mask{i}": loss.detach() for i, loss in enumerate(losses)},
        predictions=torch.cat([z.detach().flatten(0, 1) for z in predictions]),
        targets=torch.cat([h.detach().flatten(0, 1) for h in targets]),
        masks=tuple(pairs),
        grid=grid,
    )


def layer_normed(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Tokens in fp32, layer-normed without weights (eps 1e-5)."""
    return F.layer_norm(tokens.float(), tokens.shape[-1:])


def mean_distance(
    predictions: Float[Tensor, "b n d"], targets: Float[Tensor, "b n d"], exponent: float
) -> Float[Tensor, ""]:
    """Mean of |z - h| ** p / p, in fp32.

    >>> mean_distance(torch.full((1, 1, 2), 3.0), torch.ones(1, 1, 2), 2.0).item()
    2.0
    """
    return (predictions.float() - targets).abs().pow(exponent).mean() / exponent


def _to_rows(tokens: Tensor, rows: int) -> Tensor:
    """Tokens of B clips, repeated as a whole to `rows`."""
    return tokens if len(tokens) == rows else tokens.repeat(rows // len(tokens), 1, 1)
