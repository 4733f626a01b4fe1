"""Measures of features, as pure functions of tensors: spread, rank, likeness. No labels needed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def feature_std(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean over channels of the standard deviation over tokens; 0 where all tokens are alike.

    >>> feature_std(torch.ones(8, 4)).item()
    0.0
    """
    return features.float().std(dim=0).mean()


def effective_rank(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Number of directions the centred tokens spread over: exp of the entropy of their singular values.

    RankMe (arXiv 2210.02885) on centred features, so that a shared constant counts for nothing. Between 1 and
    min(N, D); identical tokens give 1, tokens that are not finite NaN.
    """
    centred = features.float() - features.float().mean(dim=0)
    gram = centred.T @ centred
    finite = gram.isfinite().all()
    gram = torch.where(finite, gram, 0.0)  # eigvalsh raises on NaN, and a run must live to be judged
    spectrum = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = spectrum / spectrum.sum().clamp(min=1e-12)
    return torch.where(finite, torch.special.entr(share).sum().exp(), torch.nan)


def cosine_to_mean(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean cosine between the tokens and their mean: 1 where all point one way, near 0 where they cancel."""
    features = features.float()
    return F.cosine_similarity(features, features.mean(dim=0, keepdim=True), dim=1).mean()
