"""The attentive probe: a learned query pools the tokens, and a linear map classifies the result."""

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
        depth: 1 for V-JEPA's probe, 4 for V-JEPA 2's (three self-attention blocks before the pooling).
        unused_proj: Hold the output projection that V-JEPA's probe files contain and no forward pass applies, so
            that such a file can be read and written without loss.
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
        self.config: dict[str, Any] = {
            "embed_dim": embed_dim,
            "num_classes": num_classes,
            "num_heads": num_heads,
            "depth": depth,
            "unused_proj": unused_proj,
        }
        self.pooler = AttentivePooler(embed_dim=embed_dim, num_heads=num_heads, depth=depth)
        if unused_proj:
            # without a gradient, for which parallel training would wait
            proj = nn.Linear(embed_dim, embed_dim).requires_grad_(False)
            self.pooler.cross_attention_block.xattn.register_module("proj", proj)
        self.linear = nn.Linear(embed_dim, num_classes)
        init_weights(self.linear)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Map tokens (B, N, D) to logits (B, classes)."""
        return self.linear(self.pooler(tokens)[:, 0])
