"""Pixels: what the targets are, and that the loss is of what is hidden."""

import pytest
import torch

from tests.masks.given import Given
from vjepa.masks import Causal, TubeBlocks
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import PixelPrediction
from vjepa.types import ClipBatch, MaskPair, TokenGrid

GRID = TokenGrid(2, 2, 2)
PAIR = MaskPair(context=torch.tensor([[0, 1, 2, 3]]), target=torch.tensor([[4, 7]]))


def tiny(masks=None, **arguments) -> PixelPrediction:
    torch.manual_seed(0)
    return PixelPrediction(
        encoder=VideoEncoder(img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=1, num_heads=2),
        predictor=lambda width, **more: Predictor(width, embed_dim=12, depth=1, num_heads=1, **more),
        masks=masks or [Given(PAIR)],
        **arguments,
    )


def clips(num_frames: int = 4) -> ClipBatch:
    rows = torch.arange(2)
    video = torch.randn(2, 3, num_frames, 16, 16, generator=torch.Generator().manual_seed(0))
    return ClipBatch(video=video, label=rows, index=rows)


def test_targets_are_the_pixels_of_each_tubelet():
    video = clips().video
    found = tiny(normalize=False).targets(video)
    expected = (
        video[:, :, 2:4, 8:16, 0:8].permute(0, 2, 3, 4, 1).flatten(1)
    )  # token 6: second time, lower left
    assert torch.equal(found[:, 6], expected)
    normed = tiny().targets(video)[:, 6].unflatten(1, (-1, 3))
    plain = expected.unflatten(1, (-1, 3))
    torch.testing.assert_close(normed.mean(1), torch.zeros(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(normed * plain.std(1, keepdim=True) + plain.mean(1, keepdim=True), plain)


def test_a_patch_of_one_colour_is_zero_and_not_infinite():
    assert not tiny().targets(torch.ones(1, 3, 4, 16, 16)).any()


@torch.no_grad()
def test_an_image_is_held_for_a_tubelet_as_the_encoder_holds_it():
    video = clips(1).video
    targets = tiny(normalize=False).targets(video).unflatten(2, (2, -1))
    assert torch.equal(targets[:, :, 0], targets[:, :, 1])
    pair = MaskPair(context=torch.tensor([[0, 1]]), target=torch.tensor([[3]]))
    assert tiny([Given(pair)])(clips(1), torch.Generator()).loss.isfinite()


def test_the_loss_is_the_mean_square_error_of_what_is_hidden_from_what_is_seen():
    objective, batch = tiny(), clips()
    output = objective(batch, torch.Generator())
    torch.testing.assert_close(output.loss.detach(), (output.predictions - output.targets).square().mean())
    targets = objective.targets(batch.video)[:, [4, 7]].flatten(0, 1)
    assert torch.equal(output.targets, targets)
    changed = batch.video.clone()
    changed[:, :, 2:] += torch.randn_like(changed[:, :, 2:])  # the second time, which is hidden
    again = objective(ClipBatch(changed, batch.label, batch.index), torch.Generator())
    assert torch.equal(again.predictions, output.predictions) and not torch.equal(again.targets, targets)
    assert tiny(normalize=False)(batch, torch.Generator()).loss != output.loss


def test_loss_is_the_mean_over_masks_and_all_weights_learn():
    objective = tiny([TubeBlocks(num_blocks=1), Causal()])
    output = objective(clips(), torch.Generator().manual_seed(0))
    parts = torch.stack([output.metrics["loss_mask0"], output.metrics["loss_mask1"]])
    torch.testing.assert_close(output.loss.detach(), parts.mean())
    output.loss.backward()
    assert all(p.grad is not None for p in objective.parameters())
    assert objective.ema_pairs() == [] and objective.target_encoder is objective.context_encoder


def test_no_mask_is_refused():
    with pytest.raises(ValueError, match="vjepa.masks.TubeBlocks"):
        PixelPrediction(
            encoder=tiny().context_encoder, predictor=lambda w, **more: Predictor(w, **more), masks=[]
        )
