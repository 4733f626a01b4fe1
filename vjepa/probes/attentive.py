"""The attentive probe: a learned query reads the tokens, a linear map names what it read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.layers import init_weights
from vjepa.layers.pooling import AttentivePooler, read_tokens
from vjepa.probes.base import Probe


class AttentiveProbe(Probe):
    """Attentive pooling and a linear map, with the key names of the released probes.

    Args:
        embed_dim: Width of a token.
        num_classes: Number of classes.
        num_heads: Attention heads of the pooler.
        depth: 1 as V-JEPA's probe, 4 as V-JEPA 2's (three self-attention blocks before the pooling).
        unused_proj: Hold the output projection which the files of V-JEPA's probes contain and no forward
            applies, so that such a file can be read in whole and written back.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_classes: int,
        num_heads: int,
        depth: int = 1,
        unused_proj: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.pooler = AttentivePooler(embed_dim=embed_dim, num_heads=num_heads, depth=depth)
        if unused_proj:
            idle = nn.Linear(embed_dim, embed_dim).requires_grad_(
                False
            )  # else parallel training waits for it
            self.pooler.cross_attention_block.xattn.register_module("proj", idle)
        self.linear = nn.Linear(embed_dim, num_classes)
        init_weights(self.linear)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Tokens (B, N, D) to logits (B, classes)."""
        return self.linear(self.pooler(tokens)[:, 0])


def logits_together(
    probes: Sequence[AttentiveProbe], tokens: Float[Tensor, "b n d"]
) -> list[Float[Tensor, "b classes"]]:
    """Logits of several probes for the same tokens, which are read once where the probes have depth 1.

    Args:
        probes: Probes of one make.
        tokens: Tokens (B, N, D).
    """
    if len(probes[0].pooler.blocks):
        return [probe(tokens) for probe in probes]
    looks = torch.stack([probe.pooler.look() for probe in probes])
    mixed = read_tokens(tokens, looks.flatten(0, 1)).split(looks.shape[1], dim=1)
    return [probe.linear(probe.pooler.pool(part)[:, 0]) for probe, part in zip(probes, mixed, strict=True)]
