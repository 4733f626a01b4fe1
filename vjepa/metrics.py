"""Label-free measures of features, as pure functions of tensors: spread, rank, similarity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def feature_std(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the standard deviation over tokens, averaged over channels; 0 if all tokens are equal.

    >>> feature_std(torch.ones(8, 4)).item()
    0.0
    """
    return features.float().std(dim=0).mean()


def effective_rank(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the effective rank of the centred tokens: exp of the entropy of their normalised singular values.

    This is RankMe (arXiv 2210.02885) on centred features, so a constant common to all tokens does not count. The
    result lies between 1 and min(N, D). Equal tokens give 1; tokens with NaN or infinity give NaN.
    """
    centred = features.float() - features.float().mean(dim=0)
    gram = centred.T @ centred
    finite = gram.isfinite().all()
    gram = torch.where(finite, gram, 0.0)  # eigvalsh raises on NaN, and a measure must not end the run
    spectrum = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = spectrum / spectrum.sum().clamp(min=1e-12)
    return torch.where(finite, torch.special.entr(share).sum().exp(), torch.nan)


def cosine_to_mean(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the mean cosine between the tokens and their mean: 1 if all are parallel, near 0 if they cancel."""
    features = features.float()
    return F.cosine_similarity(features, features.mean(dim=0, keepdim=True), dim=1).mean()
