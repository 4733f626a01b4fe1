"""Where a probe looks: the shares by which its queries mix a clip's tokens, and those over the frames."""

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

HOT = (1.0, 0.25, 0.0)  # colour of the token looked at most
STRENGTH = 0.75  # of the colour over the picture there


@torch.no_grad()
def attention_of(head: Probe, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"] | None:
    """Share of each token in what an attentive probe reads, mean of its heads; None for other probes.

    Tokens in the order of the clip; with self-attention blocks before the pooling, a token there has seen the
    others, and its share is that of its place.

    Args:
        head: The probe.
        tokens: Tokens (B, N, D), as the encoder gave them.
    """
    if isinstance(head, StandardizedProbe):
        return attention_of(head.probe, head.standardize(tokens))
    if not isinstance(head, AttentiveProbe):
        return None
    for block in head.pooler.blocks:
        tokens = block(tokens)
    return token_shares(tokens, head.pooler.token_queries()).mean(dim=1)


def overlay(
    frames: UInt8[Tensor, "t 3 h w"], shares: Float[Tensor, "n"], grid: TokenGrid
) -> UInt8[Tensor, "t 3 h w"]:
    """Frames, one a tubelet, with the shares as a red haze: strongest at the clip's largest share.

    Args:
        frames: The first frame of each tubelet.
        shares: Of the tokens, time slowest.
        grid: Extent of the clip in tokens.
    """
    assert len(frames) == grid.t, (frames.shape, grid)
    cube = rearrange(shares, "(t h w) -> t 1 h w", t=grid.t, h=grid.h)
    haze = (
        F.interpolate(cube / cube.max().clamp(min=1e-12), size=frames.shape[2:], mode="bilinear") * STRENGTH
    )
    colour = 255 * torch.tensor(HOT)[:, None, None]
    return (frames * (1 - haze) + colour * haze).round().to(torch.uint8)
