"""The attention of a probe: the weight of each token in what its queries read, drawn over the frames."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vjepa.layers.pooling import token_shares
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe, StandardizedProbe
from vjepa.types import TokenGrid

HOT = (1.0, 0.25, 0.0)  # colour of the token with the largest weight
STRENGTH = 0.75  # of the colour over the frame there


@torch.no_grad()
def attention_of(head: Probe, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"] | None:
    """Return the attention weight of each token, averaged over the heads; None if the probe is not attentive.

    Tokens keep the order of the clip. With self-attention blocks before the pooling, a token has mixed with the
    others by then, and its weight is that of its position.
    """
    if isinstance(head, StandardizedProbe):
        return attention_of(head.probe, head.standardize(tokens))
    if not isinstance(head, AttentiveProbe):
        return None
    return token_shares(head.pooler.mix(tokens), head.pooler.token_queries()).mean(dim=1)


def overlay(
    frames: UInt8[Tensor, "t 3 h w"], weights: Float[Tensor, "n"], grid: TokenGrid
) -> UInt8[Tensor, "t 3 h w"]:
    """Return one frame per tubelet with a red overlay where the weight is above the clip's mean.

    Weights below the mean are not drawn: nearly equal weights would cover the clip.
    """
    assert len(frames) == grid.t, (frames.shape, grid)
    cube = rearrange(weights, "(t h w) -> t 1 h w", t=grid.t, h=grid.h)
    above = (cube - cube.mean()).clamp(min=0)
    relative = above / above.max().clamp(min=1e-12)
    opacity = F.interpolate(relative, size=frames.shape[2:], mode="bilinear") * STRENGTH
    colour = 255 * torch.tensor(HOT)[:, None, None]
    return (frames * (1 - opacity) + colour * opacity).round().to(torch.uint8)
