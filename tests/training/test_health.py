"""Health of a run: what collapse looks like."""

import pytest
import torch

from tests.training.runs import FIRST_HALF, clip_loader, tiny_module
from vjepa.training.health import MAX_TOKENS, feature_health, mask_geometry, network_health, not_measured
from vjepa.types import LossOutput


def output(predictions: torch.Tensor, targets: torch.Tensor) -> LossOutput:
    return LossOutput(loss=torch.zeros(()), predictions=predictions, targets=targets)


@pytest.fixture
def targets():
    return torch.nn.functional.layer_norm(
        torch.randn(512, 16, generator=torch.Generator().manual_seed(0)), (16,)
    )


def test_perfect_predictions(targets):
    health = feature_health(output(targets.clone(), targets))
    assert health["loss_over_mean"] == 0
    assert health["target_std"] == health["prediction_std"] > 0.9
    assert health["target_rank"] > 14
    assert health["target_cosine"].abs() < 0.1


def test_what_is_not_returned_is_not_measured(targets):
    assert feature_health(LossOutput(loss=torch.zeros(()))) == {} == mask_geometry((), None)
    alone = feature_health(LossOutput(loss=torch.zeros(()), targets=targets))
    assert alone == {
        k: v for k, v in feature_health(output(targets, targets)).items() if k.startswith("target_")
    }
    assert not_measured(LossOutput(torch.zeros(()), targets=targets)).startswith(
        "no predictions, masks to measure"
    )
    everything = LossOutput(torch.zeros(()), targets, targets, masks=(FIRST_HALF,))
    assert not_measured(everything) == ""


def test_predicting_the_mean_token_is_nothing_learned(targets):
    health = feature_health(output(targets.mean(0).expand_as(targets), targets))
    assert health["loss_over_mean"].item() == pytest.approx(1.0, abs=1e-5)
    assert health["prediction_std"] < 1e-5
    assert health["prediction_rank"] < 1.5


def test_collapsed_targets_show(targets):
    collapsed = targets[:1] + 1e-4 * targets
    health = feature_health(output(targets, collapsed))
    assert health["target_std"] < 1e-3
    assert health["target_cosine"] > 0.999
    line = torch.outer(targets[:, 0], torch.ones(16))  # one direction left
    assert feature_health(output(targets, line))["target_rank"] < 2


def test_many_tokens_are_thinned_evenly():
    tokens = torch.arange(4 * MAX_TOKENS).float()[:, None] * torch.ones(1, 4)
    whole = feature_health(output(tokens, tokens))["target_std"]
    assert whole.item() == pytest.approx(tokens.std(0).mean().item(), rel=1e-2)


def test_gradients_and_distance_of_networks():
    module = tiny_module()
    (batch, *_) = list(clip_loader(2, 2))
    module.objective(batch, torch.Generator()).loss.backward()
    health = network_health(module.objective)
    assert health["ema_distance"] == 0
    squares = sum(p.grad.square().sum() for p in module.objective.context_encoder.parameters())
    assert health["grad_norm_encoder"].item() == pytest.approx(squares.sqrt().item(), rel=1e-5)
    assert health["grad_norm_predictor"] > 0
