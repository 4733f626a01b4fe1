"""Several clips of one video: which tokens a probe sees together, and how its answers are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from vjepa.models import VideoEncoder
from vjepa.probes.base import Probe, ProbeError
from vjepa.probes.fitting.blocks import FrozenBlocks


@dataclass(frozen=True)
class ClipLayout:
    """The clips of one video: `segments` that follow in time, `views` that lie side by side.

    `levels` are blocks whose tokens stand one after the other within a clip; None: the last block's alone.

    >>> ClipLayout(segments=8, views=3).clips
    24
    """

    segments: int = 1
    views: int = 1
    levels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if min(self.segments, self.views) < 1:
            raise ProbeError(f"segments {self.segments}, views {self.views}: give at least 1 of each.")

    @property
    def clips(self) -> int:
        """How many clips there are of a video."""
        return self.segments * self.views

    def tokens(
        self, encoder: VideoEncoder | FrozenBlocks, video: Float[Tensor, "b c vst h w"]
    ) -> Float[Tensor, "b vsn d"]:
        """Tokens of all clips, (view, segment, token) on one axis.

        Args:
            encoder: The frozen encoder, in eval mode.
            video: The clips in a row, (view, segment, frame), as a `SegmentSampler` and a `ViewsTransform` leave them.
        """
        if self.clips == 1 and self.levels is None:
            return encoder(video)
        clips = rearrange(video, "b c (v s t) h w -> b s v c t h w", s=self.segments, v=self.views)
        return rearrange(
            join_segments(view_tokens(encoder, clips, levels=self.levels)), "b v m d -> b (v m) d"
        )


ONE_CLIP = ClipLayout()


def view_tokens(
    encoder: VideoEncoder | FrozenBlocks,
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
    if levels is None:
        tapped = [encoder(flat)]
    else:
        assert isinstance(encoder, VideoEncoder)
        tapped = encoder.forward_intermediates(flat, levels)
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
