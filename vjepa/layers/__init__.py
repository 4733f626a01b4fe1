"""The layers that the models are built from."""

from vjepa.layers.attention import Attention
from vjepa.layers.block import LAYER_NORM_EPS, Block, MlpKind, init_weights, rescale_blocks
from vjepa.layers.position import (
    RotaryStyle,
    RotaryTables,
    rotary_3d,
    rotary_of_axes,
    rotate,
    sincos_2d,
    sincos_3d,
)
from vjepa.layers.stored_rotary import store_frequencies, stored_tables
from vjepa.layers.tokens import check_ids, cross_masks, gather_tokens

__all__ = [
    "LAYER_NORM_EPS",
    "Attention",
    "Block",
    "MlpKind",
    "RotaryStyle",
    "RotaryTables",
    "check_ids",
    "cross_masks",
    "gather_tokens",
    "init_weights",
    "rescale_blocks",
    "rotary_3d",
    "rotary_of_axes",
    "rotate",
    "sincos_2d",
    "sincos_3d",
    "store_frequencies",
    "stored_tables",
]
