"""Nothing outside the context reaches what is computed from it, whatever the masks and positions."""

import pytest
import torch
from einops import rearrange

from tests.properties.test_masks import STRATEGIES
from vjepa.models import Predictor, VideoEncoder
from vjepa.types import TokenGrid

VARIANTS = {
    "sincos": {},
    "sincos_first": {},
    "sincos_plain": {},
    "rope": {},
    "rope_interleaved": {},
    "rope_interpolated": {"levels": (0, 1)},
    "rope_stored": {"mlp": "swiglu_full", "num_heads": 1, "embed_dim": 22},  # a third of a head is odd
}


def networks(position: str, **arguments) -> tuple[VideoEncoder, Predictor]:
    torch.manual_seed(0)
    both = {"embed_dim": 24, "depth": 2, "num_heads": 2, "position": position, **arguments}
    levels = both.pop("levels", ())
    clip = {"img_size": 32, "patch_size": 8, "num_frames": both.pop("num_frames", 8)}
    predictor = Predictor(both["embed_dim"], mask_token_std=0.1, num_levels=len(levels), **both)
    return VideoEncoder(**clip, **both, levels=levels).eval(), predictor.eval()


def hide(video: torch.Tensor, seen_ids: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """The clips with all pixels outside of the seen tubelets changed."""
    seen = torch.zeros(len(video), len(grid), dtype=torch.bool).scatter_(1, seen_ids, True)
    pixels = rearrange(seen, "b (t h w) -> b 1 t h w", t=grid.t, h=grid.h)
    for axis, times in ((2, video.shape[2] // grid.t), (3, 8), (4, 8)):
        pixels = pixels.repeat_interleave(times, dim=axis)
    return torch.where(pixels, video, torch.full_like(video, 1e6))


def assert_nothing_leaks(encoder, predictor, video, seen_ids, hidden_ids) -> None:
    grid = encoder.grid_of(video)
    clips = video, hide(video, seen_ids, grid)
    indices = encoder.levels or [1]
    contexts = [torch.cat(encoder.forward_intermediates(x, indices, seen_ids), dim=-1) for x in clips]
    assert torch.equal(*contexts)
    assert torch.equal(*(encoder(x, keep=seen_ids) for x in clips))
    predictions = [predictor(c, seen_ids, hidden_ids, grid=grid) for c in contexts]
    assert torch.equal(*predictions)
    assert not torch.equal(encoder(clips[0]), encoder(clips[1]))  # the test would see a difference


@pytest.mark.parametrize("position", VARIANTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@torch.no_grad()
def test_other_pixels_change_nothing(strategy, position):
    encoder, predictor = networks(position, **VARIANTS[position])
    video = torch.randn(2, 3, 8, 32, 48)
    pair = strategy().sample(encoder.grid_of(video), 2, torch.Generator().manual_seed(0))
    assert_nothing_leaks(encoder, predictor, video, pair.context, pair.target)


@pytest.mark.parametrize("arguments", [
    {"position": "sincos_wh", "num_frames": 1},
    {"position": "sincos", "num_frames": 1},
    {"position": "rope_interpolated", "levels": (0, 1)},
])  # fmt: skip
@torch.no_grad()
def test_other_pixels_of_an_image_change_nothing(arguments):
    encoder, predictor = networks(**arguments)
    ids = torch.rand(2, 24, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    assert_nothing_leaks(encoder, predictor, torch.randn(2, 3, 1, 32, 48), ids[:, :9], ids[:, 9:])
