"""The attentive probe: a learned query reads the tokens, a linear map names what it read."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from vjepa.layers import init_weights
from vjepa.layers.pooling import AttentivePooler
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
