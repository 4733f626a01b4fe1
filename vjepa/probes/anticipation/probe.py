"""The anticipation probe (V-JEPA 2, arXiv 2506.09985): scores of an action that starts some time after the clip.

The probe reads the tokens of the clip and the tokens that the predictor gives for the time of the action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.layers import init_weights
from vjepa.layers.pooling import AttentivePooler
from vjepa.models import Predictor, VideoEncoder
from vjepa.types import TokenGrid

FOCAL_ALPHA = 0.25  # weight of the true class
FOCAL_GAMMA = 2.0  # exponent of the probability of the wrong answer


@dataclass(frozen=True)
class ActionScores:
    """Logits of a batch: `verb` (B, verbs), `noun` (B, nouns), `action` (B, pairs of a verb and a noun)."""

    verb: Float[Tensor, "b verbs"]
    noun: Float[Tensor, "b nouns"]
    action: Float[Tensor, "b actions"]

    def __repr__(self) -> str:
        shapes = (tuple(x.shape) for x in (self.verb, self.noun, self.action))
        return "ActionScores(verb={}, noun={}, action={})".format(*shapes)


class AnticipationProbe(nn.Module):
    """Attentive pooling with three queries and a linear map of each, with the key names of the released probes.

    Args:
        embed_dim: Width of a token.
        num_verbs: Number of verbs.
        num_nouns: Number of nouns.
        num_actions: Number of pairs of a verb and a noun.
        num_heads: Attention heads of the pooler; 16 in the released probes.
        depth: 1 for the pooling alone; 4 as released, with three self-attention blocks before it.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_verbs: int,
        num_nouns: int,
        num_actions: int,
        num_heads: int = 16,
        depth: int = 4,
    ) -> None:
        super().__init__()
        classes = {"num_verbs": num_verbs, "num_nouns": num_nouns, "num_actions": num_actions}
        pooler = {"num_heads": num_heads, "depth": depth}
        self.config: dict[str, Any] = {"embed_dim": embed_dim, **classes, **pooler}
        self.pooler = AttentivePooler(embed_dim=embed_dim, num_heads=num_heads, depth=depth, num_queries=3)
        self.verb_classifier = nn.Linear(embed_dim, num_verbs)
        self.noun_classifier = nn.Linear(embed_dim, num_nouns)
        self.action_classifier = nn.Linear(embed_dim, num_actions)
        for linear in (self.verb_classifier, self.noun_classifier, self.action_classifier):
            init_weights(linear)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> ActionScores:
        """Map tokens (B, N, D), such as those of `anticipate`, to scores of verbs, nouns and actions."""
        verb, noun, action = self.pooler(tokens).unbind(dim=1)
        return ActionScores(
            self.verb_classifier(verb), self.noun_classifier(noun), self.action_classifier(action)
        )


@torch.no_grad()
def anticipate(
    encoder: VideoEncoder,
    predictor: Predictor,
    video: Float[Tensor, "b c t h w"],
    seconds: Float[Tensor, "b"],
    *,
    fps: float,
    num_tubelets: int = 1,
    num_steps: int = 1,
    mask_token: int = 1,
) -> Float[Tensor, "b n d"]:
    """Return the tokens of a clip, followed by those predicted for a later time.

    Args:
        encoder: The frozen encoder, in eval mode.
        predictor: Its predictor, in eval mode.
        video: Normalised clip (B, C, T, H, W); all of its tokens are the context.
        seconds: Time (B,) from the end of each clip to what is to be predicted; rounded down to tubelets.
        fps: Frames of the clip per second.
        num_tubelets: Tubelets to predict in one step.
        num_steps: Number of predictions. Each step replaces the oldest context by the previous prediction and keeps
            the positions, as if the clip had moved on.
        mask_token: Which mask token stands for the future; 1 is what the released probes were trained with.

    Returns:
        Tokens (B, N + num_steps * num_tubelets * h * w, D), the predicted ones as the predictor gives them.
    """
    grid, tubelet = encoder.grid_of(video), encoder.patch_embed.proj.kernel_size[0]
    plane, context = grid.h * grid.w, encoder(video)
    ids = torch.arange(len(grid), device=video.device).expand(len(video), -1)
    ahead = (seconds * fps / tubelet).long()[:, None]
    targets = len(grid) + plane * ahead + torch.arange(num_tubelets * plane, device=video.device)
    reach = TokenGrid(t=int(targets.max()) // plane + 1, h=grid.h, w=grid.w)
    tokens = [context]
    for _ in range(num_steps):
        future = predictor(context, ids, targets, grid=reach, mask_token=mask_token)
        tokens.append(future)
        context = torch.cat([context, future], dim=1)[:, -len(grid) :]
    return torch.cat(tokens, dim=1)


def sigmoid_focal_loss(logits: Float[Tensor, "b classes"], labels: Int[Tensor, "b"]) -> Float[Tensor, ""]:
    """Return the focal loss (arXiv 1708.02002) of a binary answer per class, **summed** over classes and clips."""
    truth = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    missed = (truth - logits.sigmoid()).abs()  # probability of the wrong answer
    weight = FOCAL_ALPHA * truth + (1 - FOCAL_ALPHA) * (1 - truth)
    return (weight * missed**FOCAL_GAMMA * entropy).sum()


def anticipation_loss(
    scores: ActionScores, *, verb: Int[Tensor, "b"], noun: Int[Tensor, "b"], action: Int[Tensor, "b"]
) -> Float[Tensor, ""]:
    """Return the sum of the focal losses of verbs, nouns and actions, from their class ids (B,)."""
    return (
        sigmoid_focal_loss(scores.verb, verb)
        + sigmoid_focal_loss(scores.noun, noun)
        + sigmoid_focal_loss(scores.action, action)
    )
