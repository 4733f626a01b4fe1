"""Published sizes of encoders, and the functions that list and build them."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import Any

from vjepa.errors import SettingError
from vjepa.models.encoder import VideoEncoder

# "gigantic" has MLP ratio 4.0, with which it was trained (64/13 was intended, but a keyword was misspelt).
# The "_xformers" sizes have more heads: vit_giant_xformers is the ViT-g of V-JEPA 2. The "_vjepa21" sizes are the
# encoders of V-JEPA 2.1: four levels, and the hidden width that was intended for "gigantic" (8192).
SIZES: dict[str, dict[str, Any]] = {
    "vit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "vit_huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
    "vit_giant": {"embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11},
    "vit_giant_xformers": {"embed_dim": 1408, "depth": 40, "num_heads": 22, "mlp_ratio": 48 / 11},
    "vit_gigantic": {"embed_dim": 1664, "depth": 48, "num_heads": 16},
    "vit_gigantic_xformers": {"embed_dim": 1664, "depth": 48, "num_heads": 26},
    "vit_base_vjepa21": {
        "embed_dim": 768, "depth": 12, "num_heads": 12,
        "position": "rope_interpolated", "levels": (2, 5, 8, 11),
    },
    "vit_large_vjepa21": {
        "embed_dim": 1024, "depth": 24, "num_heads": 16,
        "position": "rope_interpolated", "levels": (5, 11, 17, 23),
    },
    "vit_giant_vjepa21": {
        "embed_dim": 1408, "depth": 40, "num_heads": 22, "mlp_ratio": 48 / 11,
        "position": "rope_interpolated", "levels": (9, 19, 29, 39),
    },
    "vit_gigantic_vjepa21": {
        "embed_dim": 1664, "depth": 48, "num_heads": 26, "mlp_ratio": 64 / 13,
        "position": "rope_interpolated", "levels": (11, 23, 37, 47),
    },
}  # fmt: skip
PATCHES = ((16, 224), (16, 256), (16, 384), (14, 224))  # (patch size, image size) of the listed names


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that `create_model` knows and that match `pattern`, as file names are matched.

    >>> list_models("vit_large_*_256")
    ['vit_large_patch16_256']
    """
    names = [f"{size}_patch{patch}_{image}" for size in SIZES for patch, image in PATCHES]
    return [name for name in names if fnmatch(name, pattern)]


def create_model(name: str, **overrides: Any) -> VideoEncoder:
    """Build an encoder of a published size with random weights.

    Args:
        name: `<size>_patch<p>_<pixels>`, e.g. "vit_tiny_patch16_224"; any patch and image size is allowed.
        **overrides: Arguments of `VideoEncoder`, e.g. `num_frames=16, position="sincos"`.

    Raises:
        SettingError: If the size is not published.
    """
    match = re.fullmatch(r"(?P<size>\w+)_patch(?P<patch>\d+)_(?P<image>\d+)", name)
    if match is None or match["size"] not in SIZES:
        raise SettingError(
            f"no model is called {name!r}. Names are <size>_patch16_224 with a size of {', '.join(SIZES)}."
        )
    settings = {"patch_size": int(match["patch"]), "img_size": int(match["image"]), **SIZES[match["size"]]}
    return VideoEncoder(**{**settings, **overrides})
