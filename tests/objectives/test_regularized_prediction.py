"""Latent prediction without a moving average: where gradients go, what is penalised, and that it does not collapse."""

import pytest
import torch

from tests.masks.given import Given
from vjepa.masks import TubeBlocks
from vjepa.metrics import effective_rank
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import RegularizedPrediction, SigReg, VarianceCovariance
from vjepa.types import ClipBatch, MaskPair

PAIR = MaskPair(context=torch.tensor([[0, 1, 2, 3]]), target=torch.tensor([[4, 7]]))  # of 2 x 2 x 2 tokens
NOTHING = VarianceCovariance(std_weight=0.0, covariance_weight=0.0)


def tiny(penalties=None, masks=None, **arguments) -> RegularizedPrediction:
    torch.manual_seed(0)
    return RegularizedPrediction(
        encoder=VideoEncoder(img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=1, num_heads=2),
        predictor=lambda width: Predictor(width, embed_dim=12, depth=1, num_heads=1),
        masks=masks or [Given(PAIR)],
        penalties=penalties or [SigReg(num_directions=16)],
        **arguments,
    )


def clips(count: int = 4) -> ClipBatch:
    rows = torch.arange(count)
    video = torch.randn(count, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return ClipBatch(video=video, label=rows, index=rows)


def test_the_loss_is_the_distance_and_the_penalties():
    penalties = [SigReg(num_directions=16), VarianceCovariance()]
    output = tiny(penalties, loss_exp=1.0)(clips(), torch.Generator().manual_seed(0))
    parts = [output.metrics[k] for k in ("loss_mask0", "penalty_sigreg", "penalty_variancecovariance")]
    torch.testing.assert_close(output.loss.detach(), torch.stack(parts).sum())
    torch.testing.assert_close(parts[0], (output.predictions - output.targets).abs().mean())
    half = tiny(loss_exp=2.0)(clips(), torch.Generator())
    expected = (half.predictions - half.targets).square().mean() / 2
    torch.testing.assert_close(half.metrics["loss_mask0"], expected)


def test_targets_get_a_gradient_unless_it_is_stopped():
    gradients = {}
    for stop in (True, False):
        objective = tiny([NOTHING], stop_gradient=stop)
        objective.context_encoder(clips().video)
        objective(clips(), torch.Generator()).loss.backward()
        gradients[stop] = objective.context_encoder.norm.bias.grad
    assert not torch.allclose(gradients[True], gradients[False])
    objective = tiny([NOTHING], stop_gradient=True)
    for parameter in objective.predictor.parameters():
        parameter.data.zero_()  # so that only targets could tell the encoder anything
    objective(clips(), torch.Generator()).loss.backward()
    assert not any(p.grad.any() for p in objective.context_encoder.parameters() if p.grad is not None)


def test_penalties_move_the_encoder_even_where_targets_are_stopped():
    objective = tiny([VarianceCovariance()], stop_gradient=True)
    for parameter in objective.predictor.parameters():
        parameter.data.zero_()
    objective(clips(), torch.Generator()).loss.backward()
    assert objective.context_encoder.patch_embed.proj.weight.grad.any()


def test_positions_alone_do_not_count_as_spread():
    positions = torch.randn(1, 8, 24, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1)
    assert not tiny().samples(positions).any()
    assert torch.equal(tiny(centre="none").samples(positions), positions.flatten(0, 1))
    losses = {c: tiny(centre=c)(clips(), torch.Generator().manual_seed(0)).loss for c in ("position", "none")}
    assert losses["position"] != losses["none"]


def trained_rank(penalty) -> float:
    """Effective rank of all tokens about their position's mean, after some steps."""
    objective = tiny([penalty], [TubeBlocks(num_blocks=1)])
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    batch, generator = clips(16), torch.Generator().manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        objective(batch, generator).loss.backward()
        optimizer.step()
    with torch.no_grad():
        tokens = objective.samples(objective.context_encoder(batch.video))
    return float(effective_rank(tokens) * (tokens.std() > 0.1))


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [SigReg(num_directions=32), VarianceCovariance(std_weight=10.0)])
def test_penalties_prevent_the_collapse_that_comes_without(penalty):
    assert trained_rank(penalty) > 2 * max(trained_rank(NOTHING), 1.0)


def test_without_a_penalty_is_refused_and_the_advice_holds():
    objective = tiny()
    parts = {"encoder": objective.context_encoder, "masks": objective.masks}
    with pytest.raises(ValueError, match="SigReg or vjepa.objectives.VarianceCovariance"):
        RegularizedPrediction(**parts, predictor=lambda width: Predictor(width), penalties=[])
    tiny([SigReg()])
    tiny([VarianceCovariance()])
    assert objective.ema_pairs() == [] and objective.target_encoder is objective.context_encoder
