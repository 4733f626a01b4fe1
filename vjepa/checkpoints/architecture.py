"""How a network must be built, read off its tensors and a table of published widths.

Tensors tell widths, depths, patches and, where positions are added, the native clip. They do not tell the number
of heads, nor whether a table of positions that is there is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vjepa.checkpoints.strict import CheckpointError, count_modules
from vjepa.layers import sincos_2d, sincos_3d
from vjepa.types import TokenGrid

# width -> heads. Sizes of V-JEPA 1 and I-JEPA, and of V-JEPA 2, whose giants have heads of 64 channels
ADDITIVE_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
ROTARY_HEADS = ADDITIVE_HEADS | {1408: 22, 1664: 26}
ROTARY_PREDICTOR_HEADS = {384: 12}
PREDICTOR_WIDTH = 384  # of every published predictor; with additive positions its heads are the encoder's
DEEP_PROBE_HEADS = {width: 16 for width in (768, 1024, 1280, 1408, 1664)}  # V-JEPA 2's probes, at every width
# V-JEPA 2 was released at 256 and 384 pixels; its files alone carry a table of positions that goes unused
UNUSED_PLANES = ((16, 16), (24, 24))
NATIVE = {"img_size": 256, "num_frames": 64}  # V-JEPA 2's, for files without a table of positions


@dataclass(frozen=True)
class Layout:
    """A table of additive positions: `h_column(width)` is the channel that holds the sine of the row."""

    position: str
    video: bool
    h_column: Callable[[int], int]
    table: Callable[[TokenGrid, int], Tensor]


LAYOUTS = (
    Layout("sincos", True, lambda width: 2 * -(-width // 6), sincos_3d),
    Layout(
        "sincos_plain",
        True,
        lambda width: width // 2,
        lambda grid, width: sincos_3d(grid, width, uniform_power=False),
    ),
    Layout("sincos", False, lambda width: 0, sincos_2d),
)


def encoder_arguments(
    tensors: Mapping[str, Tensor], *, predictor: Mapping[str, Tensor], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of `VideoEncoder`.

    Args:
        tensors: Its weights.
        predictor: Weights of the predictor in the same file, empty if there is none: it tells V-JEPA 1,
            which adds positions, from V-JEPA 2, whose files have a `pos_embed` too and do not use it.
        overrides: Arguments that are given.
    """
    patch = needed(tensors, "patch_embed.proj.weight")
    video, patch_size = patch.ndim == 5, patch.shape[-1]
    tubelet_size = patch.shape[2] if video else 1
    width = _width(tensors, "norm.weight", "blocks")
    position, grid = _positions(tensors, width, video, predictor, overrides.get("position"))
    found: dict[str, Any] = {
        "patch_size": patch_size,
        "tubelet_size": tubelet_size,
        "embed_dim": width,
        "depth": count_modules(tensors, "blocks"),
        "mlp_ratio": _mlp_ratio(tensors, "blocks"),
        "position": position,
    }
    if grid is not None:
        height, wide = grid.h * patch_size, grid.w * patch_size
        found |= {"img_size": height if height == wide else (height, wide)}
        found |= {"num_frames": grid.t * tubelet_size}
    else:
        found |= NATIVE if video else {**NATIVE, "num_frames": 1}
    heads = ADDITIVE_HEADS if position.startswith("sincos") else ROTARY_HEADS
    return {**found, **_heads(heads, width), **overrides}


def predictor_arguments(tensors: Mapping[str, Tensor], *, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Predictor`."""
    width = _width(tensors, "predictor_norm.weight", "predictor_blocks")
    encoder_dim = needed(tensors, "predictor_embed.weight").shape[1]
    heads, position = _heads(ROTARY_PREDICTOR_HEADS, width), "rope"
    if "predictor_pos_embed" in tensors:
        position = _layout(tensors["predictor_pos_embed"], True, overrides.get("position"))[0]
        heads = _heads(ADDITIVE_HEADS, encoder_dim) if width == PREDICTOR_WIDTH else {}
    found = {
        "encoder_dim": encoder_dim,
        "embed_dim": width,
        "depth": count_modules(tensors, "predictor_blocks"),
        "mlp_ratio": _mlp_ratio(tensors, "predictor_blocks"),
        "position": position,
        "num_mask_tokens": count_modules(tensors, "mask_tokens"),
    }
    return {**found, **heads, **overrides}


def probe_arguments(tensors: Mapping[str, Tensor], *, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `AttentiveProbe`: depth 1 is V-JEPA 1's, which has the heads of its encoder."""
    width = needed(tensors, "pooler.query_tokens").shape[-1]
    depth = 1 + count_modules(tensors, "pooler.blocks")
    found = {
        "embed_dim": width,
        "num_classes": needed(tensors, "linear.weight").shape[0],
        "depth": depth,
    }
    return {**found, **_heads(ADDITIVE_HEADS if depth == 1 else DEEP_PROBE_HEADS, width), **overrides}


def needed(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """A tensor without which the architecture cannot be read."""
    if key not in tensors:
        raise CheckpointError(f"missing: {key}, from which the architecture is read.")
    return tensors[key]


def _heads(table: Mapping[int, int], width: int) -> dict[str, int]:
    return {"num_heads": table[width]} if width in table else {}


def _width(tensors: Mapping[str, Tensor], norm: str, stem: str) -> int:
    """What most layer norms say, so that one wrong shape is blamed on the tensor that has it."""
    keys = [
        norm,
        *(k for k in tensors if k.startswith(f"{stem}.") and k.endswith(("norm1.weight", "norm2.weight"))),
    ]
    found = Counter(tensors[key].shape[0] for key in keys if key in tensors)
    return found.most_common(1)[0][0] if found else needed(tensors, norm).shape[0]


def _mlp_ratio(tensors: Mapping[str, Tensor], stem: str) -> float:
    keys = [k for k in tensors if k.startswith(f"{stem}.") and k.endswith("mlp.fc1.weight")]
    if not keys:
        raise CheckpointError(f"missing: {stem}.0.mlp.fc1.weight, from which the architecture is read.")
    hidden, width = Counter(tuple(tensors[key].shape) for key in keys).most_common(1)[0][0]
    ratio = hidden / width
    # int(width * ratio) must be the hidden width: 6144 / 1408 is rounded
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _positions(
    tensors: Mapping[str, Tensor],
    width: int,
    video: bool,
    predictor: Mapping[str, Tensor],
    given: str | None,
) -> tuple[str, TokenGrid | None]:
    """The positions of an encoder, and its native grid where a table tells it."""
    if "pos_embed" not in tensors:
        return given or "rope", None
    table = tensors["pos_embed"]
    if given is not None and not given.startswith("sincos"):
        return given, _unused_grid(table)
    if given is None and video:
        if predictor and "predictor_pos_embed" not in predictor:
            return "rope", _unused_grid(table)
        grid = _unused_grid(table)
        if not predictor and grid is not None and (grid.h, grid.w) in UNUSED_PLANES:
            raise CheckpointError(
                "pos_embed is added to the tokens in V-JEPA 1, and goes unused in V-JEPA 2's files; the file "
                "holds no predictor that would tell. Give position='sincos' or position='rope'."
            )
    return _layout(table, video, given)


def _layout(table: Float[Tensor, "1 n d"], video: bool, given: str | None) -> tuple[str, TokenGrid | None]:
    """Which table of sines and cosines it is, to the number, and its grid."""
    width = table.shape[-1]
    if given == "sincos_first":  # another use of the same table
        given = "sincos"
    for layout in LAYOUTS:
        grid = _grid_of(table[0], layout)
        if layout.video != video or grid is None or given not in (None, layout.position):
            continue
        expected = layout.table(grid, width).to(table.dtype)
        if torch.allclose(table[0], expected, atol=_tolerance(table.dtype), rtol=0.0):
            return layout.position, grid
    known = ", ".join(layout.position for layout in LAYOUTS if layout.video == video)
    raise CheckpointError(
        f"the table of positions {tuple(table.shape)} is none of {known if given is None else given}. Where the "
        "network turns queries and keys and does not use it, give position='rope'."
    )


def _tolerance(dtype: torch.dtype) -> float:
    return max(2 * torch.finfo(dtype).eps, 1e-6)


def _unused_grid(table: Float[Tensor, "1 n d"]) -> TokenGrid | None:
    """The native grid by a table that is not added; none where it is no table of sines."""
    return _grid_of(table[0], LAYOUTS[0])


def _grid_of(table: Float[Tensor, "n d"], layout: Layout) -> TokenGrid | None:
    """The grid of a table: the sine of a coordinate is 0 where the coordinate is, and not at 1."""
    count, width = table.shape
    plane = _zeros(table[:, 0]) if layout.video else count
    row = _zeros(table[:plane, layout.h_column(width) % width])
    if not plane or not row or count % plane or plane % row:
        return None
    return TokenGrid(t=count // plane, h=plane // row, w=row)


def _zeros(column: Float[Tensor, "n"]) -> int:
    """How many zeros it begins with."""
    others = column.nonzero()
    return int(others[0, 0]) if len(others) else len(column)
