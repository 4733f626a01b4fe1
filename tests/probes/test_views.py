"""Clips of one video put together: the published protocols to their tolerance."""

import pytest
import torch
from einops import rearrange

from tests.reference import encoder_arguments, load_strictly, reference_case
from vjepa.features import ClipSpec
from vjepa.features.encode import clip_tokens
from vjepa.models import VideoEncoder
from vjepa.probes import (
    AttentiveProbe,
    LinearProbe,
    join_segments,
    mean_probabilities,
    view_tokens,
)
from vjepa.probes.base import clips_per_chunk
from vjepa.probes.results import logits_of


def clips_of(case) -> torch.Tensor:
    """Two segments of two views of one video (1, S, V, C, T, H, W)."""
    rows = [[case.tensors[f"in.clip_s{s}_v{v}"] for v in (0, 1)] for s in (0, 1)]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def random_clips() -> torch.Tensor:
    return torch.randn(2, 3, 2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def tiny(depth: int = 2) -> VideoEncoder:
    torch.manual_seed(0)
    return VideoEncoder(
        img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=depth, num_heads=2
    ).eval()


@torch.no_grad()
def test_published_views_of_vjepa_1():
    case = reference_case("probe_multiview_v1")
    encoder = VideoEncoder(**encoder_arguments(case.about["ctor"]["encoder"]))
    load_strictly(encoder, case.weights("w.encoder."))
    probe = AttentiveProbe(**case.about["ctor"]["classifier"], unused_proj=True).eval()
    probe.load_state_dict(case.weights("w.classifier."))
    tokens = view_tokens(encoder, clips_of(case))
    case.assert_close(join_segments(tokens)[:, 0], "out.view0_tokens")
    case.assert_close(mean_probabilities(probe, tokens), "out.probs_attend")
    apart = mean_probabilities(probe, tokens, attend_across_segments=False)
    case.assert_close(apart, "out.probs_noattend")


@torch.no_grad()
def test_published_order_of_levels():
    case = reference_case("multilevel_aggregation")
    encoder = VideoEncoder(**encoder_arguments(case.about["ctor"]["encoder"]))
    load_strictly(encoder, case.weights())
    joined = join_segments(view_tokens(encoder, clips_of(case), layers=case.about["ctor"]["out_layers"]))
    for view in (0, 1):
        case.assert_close(joined[:, view], f"out.view{view}")


@torch.no_grad()
def test_each_clip_is_encoded_by_itself():
    encoder, clips = tiny(), random_clips()
    tokens = view_tokens(encoder, clips)
    torch.testing.assert_close(tokens[1, 2, 0], encoder(clips[1:, 2, 0])[0])
    torch.testing.assert_close(view_tokens(encoder, clips, layers=[1]), tokens)


@pytest.mark.parametrize("attend", [True, False])
@torch.no_grad()
def test_probabilities_are_averaged_and_not_scores(attend):
    probe = LinearProbe(embed_dim=24, num_classes=3, pool="mean")
    probe.linear.weight *= 100
    tokens = torch.randn(2, 3, 2, 8, 24, generator=torch.Generator().manual_seed(0))
    shares = mean_probabilities(probe, tokens, attend_across_segments=attend)
    alone = [
        probe(tokens[:, :, v].flatten(1, 2)) if attend else probe(tokens[:, s, v])
        for v in (0, 1)
        for s in ((0,) if attend else (0, 1, 2))
    ]
    torch.testing.assert_close(shares, torch.stack([x.softmax(-1) for x in alone]).mean(0))
    torch.testing.assert_close(shares.sum(-1), torch.ones(2))
    assert not torch.allclose(shares, torch.stack(alone).mean(0).softmax(-1), atol=1e-3)


@torch.no_grad()
def test_clips_in_a_row_are_taken_apart():
    encoder, clips = tiny(), random_clips()
    in_a_row = rearrange(clips, "b s v c t h w -> b c (v s t) h w")
    tokens = clip_tokens(encoder, in_a_row, ClipSpec(segments=3, views=2))
    want = join_segments(view_tokens(encoder, clips))
    torch.testing.assert_close(tokens, rearrange(want, "b v m d -> b (v m) d"))
    assert torch.equal(clip_tokens(encoder, clips[:, 0, 0], ClipSpec()), encoder(clips[:, 0, 0]))


@torch.no_grad()
def test_scores_of_several_views_are_their_mean_probabilities():
    probe = LinearProbe(embed_dim=24, num_classes=3, pool="mean")
    probe.linear.weight *= 100
    tokens = torch.randn(5, 2 * 8, 24, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0, 3])
    got = logits_of(probe, tokens, rows, torch.device("cpu"), num_views=2)
    want = (probe(tokens[rows, :8]).softmax(-1) + probe(tokens[rows, 8:]).softmax(-1)) / 2
    torch.testing.assert_close(got, want)
    assert torch.equal(logits_of(probe, tokens, rows, torch.device("cpu")), probe(tokens[rows]))
    long = torch.zeros(9, 2048 * 64, 1, dtype=torch.float16)
    assert clips_per_chunk(long) == 4 and clips_per_chunk(long[:, :16]) == 256
