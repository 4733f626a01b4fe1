"""Several clips of one video: which tokens a probe sees together, and how its answers are put together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from vjepa.models import VideoEncoder
from vjepa.probes.base import Probe


def view_tokens(
    encoder: VideoEncoder,
    clips: Float[Tensor, "b segments views c t h w"],
    *,
    levels: Sequence[int] | None = None,
) -> Float[Tensor, "b segments views n d"]:
    """Tokens of every clip of a video, each clip encoded by itself.

    Args:
        encoder: The frozen encoder, in eval mode.
        clips: Normalised clips (B, segments, views, C, T, H, W): segments follow in time, views lie side by side.
        levels: Blocks whose tokens, normed, stand one level after the other within a clip, as V-JEPA 2 probes
            Diving48 and Jester ([17, 19, 21, 23] of a ViT-L); None: the last block's.
    """
    _, segments, views = clips.shape[:3]
    flat = rearrange(clips, "b s v c t h w -> (b s v) c t h w")
    tapped = [encoder(flat)] if levels is None else encoder.forward_intermediates(flat, levels)
    return rearrange(torch.cat(tapped, dim=1), "(b s v) n d -> b s v n d", s=segments, v=views)


def join_segments(
    tokens: Float[Tensor, "b segments views n d"],
) -> Float[Tensor, "b views m d"]:
    """Tokens (B, views, segments * N, D): a view's segments in a row, as one long clip."""
    return rearrange(tokens, "b s v n d -> b v (s n) d")


def mean_probabilities(
    probe: Probe, tokens: Float[Tensor, "b segments views n d"], *, attend_across_segments: bool = True
) -> Float[Tensor, "b classes"]:
    """Class probabilities of videos: the mean over views of the softmax of the probe's scores.

    Args:
        probe: The probe, in eval mode.
        tokens: Tokens of all clips, of `view_tokens`.
        attend_across_segments: The probe sees the segments of a view together, as in the published protocols; else
            each clip by itself, and the mean is over segments too.
    """
    if not attend_across_segments:
        tokens = rearrange(tokens, "b s v n d -> b 1 (s v) n d")
    joined = join_segments(tokens)
    shares = probe(rearrange(joined, "b v m d -> (b v) m d")).softmax(dim=-1)
    return reduce(shares, "(b v) classes -> b classes", "mean", v=joined.shape[1])
