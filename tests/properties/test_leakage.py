"""Nothing outside the context reaches what is computed from it, whatever the masks and positions."""

import pytest
import torch
from einops import rearrange

from tests.properties.test_masks import STRATEGIES
from vjepa.models import Predictor, VideoEncoder


@pytest.mark.parametrize("position", ["sincos", "rope"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@torch.no_grad()
def test_other_pixels_change_nothing(strategy, position):
    torch.manual_seed(0)
    settings = {"embed_dim": 24, "depth": 2, "num_heads": 2, "position": position}
    encoder = VideoEncoder(img_size=32, patch_size=8, num_frames=8, **settings).eval()
    predictor = Predictor(24, mask_token_std=0.1, **settings).eval()
    video = torch.randn(2, 3, 8, 32, 48)
    grid = encoder.grid_of(video)
    pair = strategy().sample(grid, 2, torch.Generator().manual_seed(0))

    seen = torch.zeros(2, len(grid), dtype=torch.bool).scatter_(1, pair.context, True)
    pixels = rearrange(seen, "b (t h w) -> b 1 t h w", t=grid.t, h=grid.h)
    for axis, times in ((2, 2), (3, 8), (4, 8)):
        pixels = pixels.repeat_interleave(times, dim=axis)
    changed = torch.where(pixels, video, torch.full_like(video, 1e6))

    contexts = [encoder(x, keep=pair.context) for x in (video, changed)]
    assert torch.equal(*contexts)
    predictions = [predictor(c, pair.context, pair.target, grid=grid) for c in contexts]
    assert torch.equal(*predictions)
    assert not torch.equal(encoder(video), encoder(changed))  # the test would see a difference
