"""Parameter groups of the optimiser, with and without weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn


def decay_groups(*networks: nn.Module) -> list[dict[str, Any]]:
    """Return parameter groups for AdamW: first the decayed weights of each network, then the others.

    Biases and vectors do not decay: their `decay` is False. The order is that of the released optimiser states. For
    (encoder, predictor): encoder with decay, predictor with decay, encoder without, predictor without.
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
