"""What objectives that hide tokens have in common: their networks, their masks, and the mean over masks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.layers import gather_tokens
from vjepa.masks import MaskStrategy
from vjepa.masks.base import checked
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives.base import Objective
from vjepa.optim import EmaPair
from vjepa.types import ClipBatch, LossOutput, MaskPair, TokenGrid

Distance = Callable[[Tensor, Tensor], Tensor]


class MaskedObjective(Objective):
    """An objective that predicts something of the hidden tokens of a clip from its visible ones.

    The loss is the mean over mask strategies.

    Args:
        encoder: The context encoder, which is trained.
        predictor: Builds the predictor from the encoder's width.
        masks: Mask strategies, at least one.
        moving_average: Make a target encoder, a copy that follows the context encoder. Otherwise the target encoder
            is the context encoder.
    """

    context_encoder: VideoEncoder
    predictor: Predictor

    def __init__(
        self,
        *,
        encoder: VideoEncoder,
        predictor: Callable[[int], Predictor],
        masks: list[MaskStrategy],
        moving_average: bool,
    ) -> None:
        super().__init__()
        if not masks:
            raise SettingError(
                "masks is empty: name at least one mask strategy, e.g. vjepa.masks.TubeBlocks."
            )
        self.masks = masks
        self.context_encoder = encoder.train()  # a loaded encoder comes in eval mode
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False) if moving_average else encoder
        self.predictor = predictor(encoder.embed_dim).train()

    def ema_pairs(self) -> list[EmaPair]:
        """Return the target encoder with the context encoder that it follows, or nothing if they are the same."""
        pair = (self.target_encoder, self.context_encoder)
        return [] if pair[0] is pair[1] else [pair]

    def draw_masks(self, batch: ClipBatch, generator: torch.Generator) -> tuple[TokenGrid, list[MaskPair]]:
        """Return the grid of the clips, and a pair of ids per strategy on the clips' device."""
        grid = self.context_encoder.grid_of(batch.video)
        # `sample_apart` is `sample`, except for strategies with several targets per clip
        drawn = ((mask, mask.sample_apart(grid, len(batch), generator)) for mask in self.masks)
        pairs = [checked(pair, mask, grid) for mask, pair in drawn]
        return grid, [pair.to(batch.video.device) for pair in pairs]

    def predict(
        self, video: Float[Tensor, "b c t h w"], pair: MaskPair, grid: TokenGrid, mask_token: int
    ) -> Float[Tensor, "rows nt d"]:
        """Return predictions of the hidden tokens from the visible tokens alone.

        `pair` has B rows, or m * B if each clip has m targets with one context: then the clip is encoded once
        and predicted m times.
        """
        context = self.context_encoder(video, keep=pair.context[: len(video)])
        context = _to_rows(context, len(pair.context))
        return self.predictor(context, pair.context, pair.target, grid=grid, mask_token=mask_token)

    def compare_hidden(
        self,
        video: Float[Tensor, "b c t h w"],
        targets: Float[Tensor, "b n d"],
        masks: tuple[TokenGrid, list[MaskPair]],
        distance: Distance,
        mask_token_numbers: Iterable[int] | None = None,
    ) -> LossOutput:
        """Predict the hidden tokens of each mask, and return their mean distance from the targets.

        `targets` are what is to be predicted, of all tokens; `masks` come from `draw_masks`.
        `mask_token_numbers` has the number of the mask token for each strategy; 0, 1, 2, ... by default.
        """
        grid, pairs = masks
        numbers = range(len(pairs)) if mask_token_numbers is None else mask_token_numbers
        hidden = [tokens_at(targets, pair.target) for pair in pairs]
        predictions = [self.predict(video, pair, grid, i) for pair, i in zip(pairs, numbers, strict=True)]
        losses = [distance(z, h) for z, h in zip(predictions, hidden, strict=True)]
        return as_loss_output(losses, predictions, hidden, masks)


def tokens_at(tokens: Float[Tensor, "b n d"], ids: Int[Tensor, "rows nt"]) -> Float[Tensor, "rows nt d"]:
    """Return the tokens that `ids` name. `ids` may have m * B rows: m targets of the B clips, target by target."""
    return gather_tokens(_to_rows(tokens, len(ids)), ids)


def as_loss_output(
    losses: list[Float[Tensor, ""]],
    predictions: list[Tensor],
    targets: list[Tensor],
    masks: tuple[TokenGrid, list[MaskPair]],
) -> LossOutput:
    """Return the mean over masks, the loss of each as `loss_mask<i>`, and all tokens and masks for the health."""
    grid, pairs = masks
    return LossOutput(
        loss=torch.stack(losses).mean(),
        metrics={f"loss_mask{i}": loss.detach() for i, loss in enumerate(losses)},
        predictions=torch.cat([z.detach().flatten(0, 1) for z in predictions]),
        targets=torch.cat([h.detach().flatten(0, 1) for h in targets]),
        masks=tuple(pairs),
        grid=grid,
    )


def _to_rows(tokens: Tensor, rows: int) -> Tensor:
    """Return the tokens of B clips, repeated as a whole to `rows`."""
    return tokens if len(tokens) == rows else tokens.repeat(rows // len(tokens), 1, 1)
