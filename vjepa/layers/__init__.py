"""Small layers that models are made of."""

from vjepa.layers.attention import Attention
from vjepa.layers.block import LAYER_NORM_EPS, Block, init_weights, rescale_blocks
from vjepa.layers.position import (
    RotaryStyle,
    RotaryTables,
    rotary_3d,
    rotary_tables,
    rotate,
    sincos_2d,
    sincos_3d,
)
from vjepa.layers.tokens import gather_tokens

__all__ = [
    "LAYER_NORM_EPS",
    "Attention",
    "Block",
    "RotaryStyle",
    "RotaryTables",
    "gather_tokens",
    "init_weights",
    "rescale_blocks",
    "rotary_3d",
    "rotary_tables",
    "rotate",
    "sincos_2d",
    "sincos_3d",
]
