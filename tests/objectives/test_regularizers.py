"""Penalties on collapse: the published values, and what they are zero for."""

import pytest
import torch

from tests.reference import reference_case
from vjepa.objectives.regularizers import (
    covariance,
    epps_pulley,
    hinge_std,
    random_directions,
    sigreg,
    vicreg,
)


def test_published_values():
    case = reference_case("collapse_regularisers")
    first, second, directions = (case.tensors[f"in.{k}"] for k in ("z1", "z2", "A_seed0"))
    case.assert_close(hinge_std(first)[None], "out.hinge_std")
    case.assert_close(covariance(first)[None], "out.covariance")
    case.assert_close(epps_pulley(first @ directions), "out.epps_pulley")
    ours = random_directions(24, 64, torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours, directions)

    total, distance, spread, shared = case.tensors["out.vicreg"]
    close = case.about["tolerance"]
    # the case's sum holds half of the covariances that it lists
    torch.testing.assert_close(vicreg(first, second, covariance_weight=0.5), total, **close)
    without = vicreg(first, second, std_weight=0.0, covariance_weight=0.0)
    torch.testing.assert_close(without, distance, **close)
    torch.testing.assert_close(vicreg(first, second, covariance_weight=0.0), distance + spread, **close)
    torch.testing.assert_close(vicreg(first, second, std_weight=0.0), distance + shared, **close)

    total, penalty, distance = case.tensors["out.bcs"]
    torch.testing.assert_close(sigreg(first, second, directions), total, **close)
    torch.testing.assert_close(sigreg(first, second, directions, weight=1.0), distance + penalty, **close)


def test_collapse_costs_and_a_normal_sample_costs_little():
    generator = torch.Generator().manual_seed(0)
    normal, collapsed = torch.randn(2000, 8, generator=generator), torch.ones(2000, 8)
    copied = normal[:, :1].expand(-1, 8)
    assert hinge_std(collapsed).item() == pytest.approx(0.99) and hinge_std(2 * normal) == 0
    assert covariance(copied) > 0.9 and covariance(normal) < 1e-2
    directions = random_directions(8, 32, generator)
    assert sigreg(collapsed, collapsed, directions) > 100 * sigreg(normal, normal, directions)
    assert sigreg(copied, copied, directions) > 10 * sigreg(normal, normal, directions)


def test_gradients_are_finite_even_where_all_is_alike():
    samples = torch.ones(8, 4, requires_grad=True)
    directions = random_directions(4, 16, torch.Generator().manual_seed(0))
    (vicreg(samples, samples) + sigreg(samples, samples, directions)).backward()
    assert samples.grad is not None and samples.grad.isfinite().all()
