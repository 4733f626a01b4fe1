"""Pre-norm transformer block."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from timm.layers import DropPath, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vjepa.layers.attention import Attention
from vjepa.layers.mlp import GeluMlp
from vjepa.layers.position import RotaryTables
from vjepa.layers.swiglu import SwiGlu, two_thirds

LAYER_NORM_EPS = 1e-6  # encoders and predictors of every release; probes use 1e-5
INIT_STD = 0.02
MlpKind = Literal["gelu", "swiglu", "swiglu_full"]


class Block(nn.Module):
    """Pre-norm transformer block: `x + Attention(norm(x))`, then `x + Mlp(norm(x))`.

    Args:
        mlp: "gelu" has two projections. "swiglu" has a gate and two thirds of the hidden width, so the number of
            weights stays the same (V-JEPA 2's `wide_silu`). "swiglu_full" has a gate and the full hidden width.
        drop_path: Probability that a clip skips a branch during training.

    Attributes:
        recompute: Whether the backward pass recomputes the block, so that only the block's input stays in memory.
        products: Autocast dtype for the block's matrix products, whatever the precision of the run; the tokens
            keep their dtype. None uses the precision of the run.
    """

    recompute = False
    products: torch.dtype | None = None

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        mlp: MlpKind = "gelu",
        drop_path: float = 0.0,
        norm_eps: float = LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.attn = Attention(embed_dim=embed_dim, num_heads=num_heads)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = _mlp(mlp, embed_dim, int(embed_dim * mlp_ratio))

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        rotary: RotaryTables | None = None,
        visible: Bool[Tensor, "n n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Map tokens (B, N, D) to tokens (B, N, D); `Attention` describes `rotary` and `visible`."""
        if self.products is not None:
            with torch.autocast(tokens.device.type, self.products):
                return self._mix(tokens, rotary, visible)
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._mix, tokens, rotary, visible, use_reentrant=False)
        return self._mix(tokens, rotary, visible)

    def _mix(self, tokens: Tensor, rotary: RotaryTables | None, visible: Tensor | None) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), rotary, visible))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


def _mlp(kind: MlpKind, embed_dim: int, hidden_dim: int) -> nn.Module:
    if kind == "gelu":
        return GeluMlp(embed_dim=embed_dim, hidden_dim=hidden_dim)
    return SwiGlu(embed_dim=embed_dim, hidden_dim=two_thirds(hidden_dim) if kind == "swiglu" else hidden_dim)


def init_weights(module: nn.Module) -> None:
    """Draw one module's weights from a normal of std 0.02 and set its biases to 0; use `model.apply(init_weights)`."""
    if isinstance(module, nn.Linear | nn.Conv3d):
        trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def rescale_blocks(blocks: Iterable[nn.Module], *, first: int = 1) -> None:
    """Divide the output projections of block i by sqrt(2 (i + first)), so that variance does not grow with depth.

    In a gated MLP `fc2` is the second input projection. It is divided too, as in the released code.
    """
    for depth, block in enumerate(blocks, start=first):
        for projection in ("attn.proj", "mlp.fc2"):
            cast("nn.Linear", block.get_submodule(projection)).weight.data.div_(math.sqrt(2 * depth))
