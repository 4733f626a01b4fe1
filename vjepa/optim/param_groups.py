"""Which weights decay."""

from __future__ import annotations

from typing import Any

from torch import nn


def decay_groups(*networks: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: first what decays of each network, then what does not.

    Biases and vectors do not decay. The order is that of the released optimiser states: with (encoder,
    predictor) encoder decayed, predictor decayed, encoder not, predictor not.

    Returns:
        Groups with `params` and `decay` (whether a weight-decay schedule applies to them).
    """
    return [
        {
            "params": [p for n, p in net.named_parameters() if p.requires_grad and _decays(n, p) == decay],
            "decay": decay,
        }
        for decay in (True, False)
        for net in networks
    ]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and "bias" not in name
