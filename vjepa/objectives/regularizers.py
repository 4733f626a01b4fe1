"""Penalties on embeddings that collapse, as pure functions of samples (N, D): VICReg and SIGReg.

Sources: VICReg (arXiv 2105.04906), LeJEPA (arXiv 2511.08544). Under several processes they see the samples of
their own process.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

VARIANCE_FLOOR = 1e-4  # keeps the gradient of the square root finite
KNOTS, RANGE = 10, 3.0  # points at which characteristic functions are compared, over [-3, 3]


def hinge_std(samples: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """How far the standard deviations of the features fall short of 1, on average; 0 where none does.

    >>> round(hinge_std(torch.ones(8, 4)).item(), 3)
    0.99
    """
    return F.relu(1 - (samples.var(dim=0) + VARIANCE_FLOOR).sqrt()).mean()


def covariance(samples: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean square of the covariances between different features."""
    square = samples.T.cov().square()
    width = len(square)
    return (square.sum() - square.diagonal().sum()) / (width * (width - 1))


def vicreg(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "n d"],
    *,
    std_weight: float = 1.0,
    covariance_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """Distance of two views of the same samples, and the penalties on each view.

    Args:
        first: Samples (N, D).
        second: The same samples, seen another way.
        std_weight: Weight of both `hinge_std`.
        covariance_weight: Weight of both `covariance`.
    """
    spread = hinge_std(first) + hinge_std(second)
    shared = covariance(first) + covariance(second)
    return F.mse_loss(first, second) + std_weight * spread + covariance_weight * shared


def random_directions(width: int, count: int, generator: torch.Generator) -> Float[Tensor, "{width} {count}"]:
    """Directions as columns (width, count), of length 1; new ones every step, the same in all processes."""
    return F.normalize(torch.randn(width, count, generator=generator, device=generator.device), dim=0)


def epps_pulley(samples: Float[Tensor, "n k"]) -> Float[Tensor, "k"]:
    """How far each column is from a standard normal sample: squared distance of characteristic functions."""
    knots = torch.linspace(-RANGE, RANGE, KNOTS, device=samples.device)
    normal = torch.exp(-knots.square() / 2)[:, None]
    angles = knots[:, None, None] * samples
    distance = (angles.cos().mean(dim=1) - normal).square() + angles.sin().mean(dim=1).square()
    return torch.trapezoid(normal * distance, knots, dim=0)


def sigreg(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "n d"],
    directions: Float[Tensor, "d k"],
    *,
    weight: float = 10.0,
) -> Float[Tensor, ""]:
    """Distance of two views of the same samples, and how far each is from an isotropic normal distribution.

    Args:
        first: Samples (N, D).
        second: The same samples, seen another way.
        directions: Directions (D, K) to look along, of `random_directions`.
        weight: Weight of the mean of `epps_pulley` over directions and views.
    """
    looks = torch.cat([first @ directions, second @ directions], dim=1)
    return F.mse_loss(first, second) + weight * epps_pulley(looks).mean()
