"""Penalties on collapse: the published values, and what they are zero for."""

import pytest
import torch

from tests.reference import reference_case
from vjepa.objectives import SigReg, VarianceCovariance
from vjepa.objectives.regularizers import covariance, epps_pulley, hinge_std, random_directions

UNUSED = torch.Generator()


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
    views = (first, second)
    # the case's sum holds half of the covariances that it lists
    both = sum(VarianceCovariance(covariance_weight=0.5)(view, UNUSED) for view in views)
    torch.testing.assert_close(distance + both, total, **close)
    torch.testing.assert_close(
        sum(VarianceCovariance(covariance_weight=0.0)(view, UNUSED) for view in views), spread, **close
    )
    torch.testing.assert_close(
        sum(VarianceCovariance(std_weight=0.0)(view, UNUSED) for view in views), shared, **close
    )

    total, penalty, distance = case.tensors["out.bcs"]
    for weight, expected in ((1.0, penalty), (10.0, total - distance)):
        both = [
            SigReg(weight=weight, num_directions=64)(view, torch.Generator().manual_seed(0)) for view in views
        ]
        torch.testing.assert_close(sum(both) / 2, expected, **close)


def test_collapse_costs_and_a_normal_sample_costs_little():
    generator = torch.Generator().manual_seed(0)
    normal, collapsed = torch.randn(2000, 8, generator=generator), torch.ones(2000, 8)
    copied = normal[:, :1].expand(-1, 8)
    assert hinge_std(collapsed).item() == pytest.approx(0.99) and hinge_std(2 * normal) == 0
    assert covariance(copied) > 0.9 and covariance(normal) < 1e-2
    penalty = SigReg(num_directions=32)
    assert penalty(collapsed, generator) > 100 * penalty(normal, generator)
    assert penalty(copied, generator) > 10 * penalty(normal, generator)


def test_directions_are_drawn_from_the_generator():
    samples, generator = torch.randn(50, 8, generator=UNUSED), torch.Generator().manual_seed(0)
    first, second = (SigReg(num_directions=4)(samples, generator) for _ in range(2))
    assert first != second
    assert first == SigReg(num_directions=4)(samples, generator.manual_seed(0))
    assert first != SigReg(num_directions=8)(samples, generator.manual_seed(0))


def test_gradients_are_finite_even_where_all_is_alike():
    samples = torch.ones(8, 4, requires_grad=True)
    (VarianceCovariance()(samples, UNUSED) + SigReg()(samples, torch.Generator())).backward()
    assert samples.grad is not None and samples.grad.isfinite().all()
