"""The attentive probe: a learned query pools the tokens, and a linear map classifies the result."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from vjepa.errors import SettingError
from vjepa.layers import init_weights
from vjepa.layers.pooling import AttentivePooler, BlocksOn
from vjepa.probes.base import Probe


class AttentiveProbe(Probe):
    """Attentive pooling and a linear map, with the key names of the released probes.

    Args:
        embed_dim: Width of a token.
        num_classes: Number of classes.
        num_heads: Attention heads of the pooler.
        depth: 1 for V-JEPA's probe, 4 for V-JEPA 2's (three self-attention blocks before the pooling).
        blocks_on: Where the self-attention blocks of a depth above 1 run: on the tokens before the pooling (V-JEPA 2),
            or on the query after it (V-JEPA 1).
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
        blocks_on: BlocksOn = "tokens",
    ) -> None:
        super().__init__()
        if unused_proj and depth > 1 and blocks_on != "query":
            raise SettingError(
                f"unused_proj is of V-JEPA 1, whose probes run their blocks on the query; got depth {depth} and "
                f"blocks_on={blocks_on!r}. Give blocks_on='query', or drop unused_proj."
            )
        self.config: dict[str, Any] = {
            "embed_dim": embed_dim,
            "num_classes": num_classes,
            "num_heads": num_heads,
            "depth": depth,
            "unused_proj": unused_proj,
            "blocks_on": blocks_on,
        }
        self.pooler = AttentivePooler(
            embed_dim=embed_dim, num_heads=num_heads, depth=depth, blocks_on=blocks_on
        )
        if unused_proj:
            # without a gradient, for which parallel training would wait
            proj = nn.Linear(embed_dim, embed_dim).requires_grad_(False)
            self.pooler.cross_attention_block.xattn.register_module("proj", proj)
        self.linear = nn.Linear(embed_dim, num_classes)
        init_weights(self.linear)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Map tokens (B, N, D) to logits (B, classes)."""
        return self.linear(self.pooler(tokens)[:, 0])
