"""Penalties on collapsed embeddings: functions of samples (N, D), and VICReg and SIGReg as objects.

Sources: VICReg (arXiv 2105.04906), LeJEPA (arXiv 2511.08544). With several processes, each
penalises its own samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

VARIANCE_FLOOR = 1e-4  # keeps the gradient of the square root finite
KNOTS, RANGE = 10, 3.0  # points at which characteristic functions are compared, over [-3, 3]


def hinge_std(samples: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the mean shortfall of the features' standard deviations below 1; 0 if none is below.

    >>> round(hinge_std(torch.ones(8, 4)).item(), 3)
    0.99
    """
    return F.relu(1 - (samples.var(dim=0) + VARIANCE_FLOOR).sqrt()).mean()


def covariance(samples: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the mean square of the covariances between different features."""
    # not Tensor.cov, which reads values and so fails on fake tensors (`vjepa estimate`)
    centred = samples - samples.mean(dim=0)
    square = (centred.T @ centred / max(len(samples) - 1, 1)).square()
    width = len(square)
    return (square.sum() - square.diagonal().sum()) / (width * (width - 1))


def random_directions(width: int, count: int, generator: torch.Generator) -> Float[Tensor, "{width} {count}"]:
    """Draw directions as columns (width, count), of length 1."""
    return F.normalize(torch.randn(width, count, generator=generator, device=generator.device), dim=0)


def epps_pulley(samples: Float[Tensor, "n k"]) -> Float[Tensor, "k"]:
    """Return each column's squared distance of characteristic functions from a standard normal sample."""
    knots = torch.linspace(-RANGE, RANGE, KNOTS, device=samples.device)
    normal = torch.exp(-knots.square() / 2)[:, None]
    # the other half is its mirror image: cos is even, sin odd
    angles = knots[KNOTS // 2 :, None, None] * samples
    half = (angles.cos().mean(dim=1) - normal[KNOTS // 2 :]).square() + angles.sin().mean(dim=1).square()
    distance = torch.cat([half.flip(0), half])
    return torch.trapezoid(normal * distance, knots, dim=0)


class Penalty(ABC):
    """A term that keeps an encoder without a moving average from mapping all tokens to one."""

    @abstractmethod
    def __call__(self, samples: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the weighted penalty on samples (N, D) in fp32; random numbers come from `generator`, on the CPU."""


class SigReg(Penalty):
    """Distance from an isotropic normal distribution (SIGReg), along new random directions at each step.

    Args:
        weight: Weight of the mean of `epps_pulley` over directions.
        num_directions: Directions per step.
    """

    def __init__(self, *, weight: float = 10.0, num_directions: int = 256) -> None:
        self.weight, self.num_directions = weight, num_directions

    def __call__(self, samples: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, ""]:
        """See `Penalty.__call__`."""
        directions = random_directions(samples.shape[1], self.num_directions, generator).to(samples.device)
        return self.weight * epps_pulley(samples @ directions).mean()


class VarianceCovariance(Penalty):
    """Standard deviations below 1, and covariances between features (VICReg).

    Args:
        std_weight: Weight of `hinge_std`.
        covariance_weight: Weight of `covariance`.
    """

    def __init__(self, *, std_weight: float = 1.0, covariance_weight: float = 1.0) -> None:
        self.std_weight, self.covariance_weight = std_weight, covariance_weight

    def __call__(self, samples: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, ""]:
        """See `Penalty.__call__`."""
        return self.std_weight * hinge_std(samples) + self.covariance_weight * covariance(samples)
