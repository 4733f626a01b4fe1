"""Constructor arguments of a network, read from its tensors and tables of published sizes.

Tensors determine widths, depths, patches and, with additive positions, the native clip. They do not determine the
number of heads, nor whether a table of positions is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vjepa.checkpoints.position_tables import (
    IMAGE_LAYOUTS,
    PREDICTOR_LAYOUTS,
    VIDEO_LAYOUTS,
    recognise,
    unused_grid,
)
from vjepa.checkpoints.strict import CheckpointError, count_modules
from vjepa.layers.swiglu import two_thirds
from vjepa.models import SIZES
from vjepa.types import TokenGrid

# width -> heads. Sizes of V-JEPA 1 and I-JEPA, and of V-JEPA 2, whose giants have heads of 64 channels
ADDITIVE_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
ROTARY_HEADS = ADDITIVE_HEADS | {1408: 22, 1664: 26}
ROTARY_PREDICTOR_HEADS = {384: 12}
ACTION_PREDICTOR_HEADS = {1024: 16}
PREDICTOR_WIDTH = 384  # of every published predictor; with additive positions its heads are the encoder's
DEEP_PROBE_HEADS = {width: 16 for width in (768, 1024, 1280, 1408, 1664)}  # V-JEPA 2's probes, at every width
# V-JEPA 2 was released at 256 and 384 pixels; its files alone carry a table of positions that goes unused
UNUSED_PLANES = ((16, 16), (24, 24))
# of V-JEPA 2.1, by depth
LEVELS = {size["depth"]: size["levels"] for size in SIZES.values() if "levels" in size}
DEPTHS = {size["embed_dim"]: size["depth"] for size in SIZES.values()}
MLP_RATIOS = (4.0, 48 / 11, 64 / 13)  # published
ANTICIPATED = ("verb", "noun", "action")  # classifiers of a probe of EPIC-KITCHENS-100
UNUSED_PROJECTION = "pooler.cross_attention_block.xattn.proj."  # of V-JEPA 1's probes, never applied
FREQUENCIES = "attn.d_rotary_emb.freqs"
NATIVE = {"img_size": 256, "num_frames": 64}  # V-JEPA 2's, for files without a table of positions


class AmbiguousPositionsError(CheckpointError):
    """Weights of which positions fit both V-JEPA 1 and V-JEPA 2."""


def encoder_arguments(
    tensors: Mapping[str, Tensor], *, predictor: Mapping[str, Tensor], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the arguments of `VideoEncoder`; `overrides` are known.

    The weights of the predictor in the same file, if there is one, distinguish V-JEPA 1, which adds positions, from
    V-JEPA 2, whose files have a `pos_embed` too but do not use it.
    """
    patch = needed(tensors, "patch_embed.proj.weight")
    video, patch_size = patch.ndim == 5, patch.shape[-1]
    tubelet_size = patch.shape[2] if video else 1
    width = _width(tensors, "norm.weight", "blocks")
    position, grid = _positions(tensors, video, predictor, overrides.get("position"))
    found: dict[str, Any] = {
        "patch_size": patch_size,
        "tubelet_size": tubelet_size,
        "embed_dim": width,
        "depth": count_modules(tensors, "blocks"),
        **_mlp(tensors, "blocks", overrides.get("mlp")),
        "position": position,
        **_levels(tensors, overrides),
    }
    if grid is not None:
        height, wide = grid.h * patch_size, grid.w * patch_size
        found |= {"img_size": height if height == wide else (height, wide)}
        found |= {"num_frames": grid.t * tubelet_size}
    else:
        found |= NATIVE if video else {**NATIVE, "num_frames": 1}
    heads = ADDITIVE_HEADS if position.startswith("sincos") else ROTARY_HEADS
    return {**found, **_heads(heads, width), **_stored_heads(tensors, "blocks", width), **overrides}


def lost_blocks(arguments: Mapping[str, Any]) -> str:
    """Return a warning if an encoder is shallower than the published ones of its width, else an empty string.

    The depth is read from the blocks in the file, so a file that lost its last blocks looks complete.
    """
    width, depth = arguments["embed_dim"], arguments["depth"]
    published = DEPTHS.get(width, depth)
    if depth >= published:
        return ""
    return f"{depth} blocks; published networks of width {width} have {published}: were the last ones lost?"


def predictor_arguments(tensors: Mapping[str, Tensor], *, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Read the arguments of `Predictor`, or of `ActionPredictor` if the predictor takes actions."""
    width = _width(tensors, "predictor_norm.weight", "predictor_blocks")
    entrance = _entrance(tensors)
    found = {
        **entrance,
        "embed_dim": width,
        "depth": count_modules(tensors, "predictor_blocks"),
        **_mlp(tensors, "predictor_blocks", overrides.get("mlp")),
    }
    if "action_encoder.weight" in tensors:
        del found["mlp"]  # always "gelu"
        for name in ("action", "state", "extrinsics"):
            found[f"{name}_dim"] = needed(tensors, f"{name}_encoder.weight").shape[1]
        return {**found, **_heads(ACTION_PREDICTOR_HEADS, width), **overrides}
    heads, position = _heads(ROTARY_PREDICTOR_HEADS, width), "rope"
    if "predictor_pos_embed" in tensors:
        table = tensors["predictor_pos_embed"]
        position, _ = recognise(table, PREDICTOR_LAYOUTS, overrides.get("position"))
        heads = _heads(ADDITIVE_HEADS, entrance["encoder_dim"]) if width == PREDICTOR_WIDTH else {}
    elif f"predictor_blocks.0.{FREQUENCIES}" in tensors:
        position, heads = "rope_stored", _stored_heads(tensors, "predictor_blocks", width)
    elif "num_levels" in entrance:
        position = "rope_interpolated"
    count = count_modules(tensors, "mask_tokens")
    if not count and "num_mask_tokens" not in overrides:
        needed(tensors, "mask_tokens.0")
    return {**found, "position": position, "num_mask_tokens": count, **heads, **overrides}


def probe_arguments(tensors: Mapping[str, Tensor], *, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Read the arguments of `AttentiveProbe`, or of `AnticipationProbe` if there are classifiers of verbs and nouns.

    A probe of V-JEPA 1 has a projection that it never applies, the heads of its encoder, and its blocks on the query.
    """
    width = needed(tensors, "pooler.query_tokens").shape[-1]
    depth = 1 + count_modules(tensors, "pooler.blocks")
    anticipates = any(f"{name}_classifier.weight" in tensors for name in ANTICIPATED)
    linears = {"num_classes": "linear"}
    if anticipates:
        linears = {f"num_{name}s": f"{name}_classifier" for name in ANTICIPATED}
    classes = {name: needed(tensors, f"{linear}.weight").shape[0] for name, linear in linears.items()}
    found = {"embed_dim": width, **classes, "depth": depth}
    first = any(key.startswith(UNUSED_PROJECTION) for key in tensors)
    heads = ADDITIVE_HEADS if first else DEEP_PROBE_HEADS
    if depth == 1 and not first:  # either family's, written again: heads are known where both have the same
        heads = dict(ADDITIVE_HEADS.items() & DEEP_PROBE_HEADS.items())
    return {**found, **blocks_on(tensors, depth), **_heads(heads, width), **overrides}


def blocks_on(keys: Iterable[str], depth: int) -> dict[str, str]:
    """Return where the blocks of a deep probe run, if its keys show that it is V-JEPA 1's."""
    first = depth > 1 and any(key.startswith(UNUSED_PROJECTION) for key in keys)
    return {"blocks_on": "query"} if first else {}


def needed(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """Return a tensor without which the architecture cannot be read."""
    if key not in tensors:
        raise CheckpointError(f"missing: {key}, from which the architecture is read.")
    return tensors[key]


def _heads(table: Mapping[int, int], width: int) -> dict[str, int]:
    return {"num_heads": table[width]} if width in table else {}


def _width(tensors: Mapping[str, Tensor], norm: str, stem: str) -> int:
    """Return the width of most layer norms, so that an error names the one tensor with a wrong shape."""
    ends = ("norm1.weight", "norm2.weight")
    keys = [norm, *(k for k in tensors if k.startswith(f"{stem}.") and k.endswith(ends))]
    found = Counter(tensors[key].shape[0] for key in keys if key in tensors)
    return found.most_common(1)[0][0] if found else needed(tensors, norm).shape[0]


def _mlp(tensors: Mapping[str, Tensor], stem: str, given: str | None) -> dict[str, Any]:
    """Return kind and ratio of the MLPs; a gated width that fits both kinds has the published ratio."""
    keys = [k for k in tensors if k.startswith(f"{stem}.") and k.endswith("mlp.fc1.weight")]
    if not keys:
        raise CheckpointError(f"missing: {stem}.0.mlp.fc1.weight, from which the architecture is read.")
    hidden, width = Counter(tuple(tensors[key].shape) for key in keys).most_common(1)[0][0]
    if not any(k.startswith(f"{stem}.") and k.endswith("mlp.fc3.weight") for k in tensors):
        return {"mlp": "gelu", "mlp_ratio": _ratio(hidden, width)}
    for ratio in MLP_RATIOS:
        widths = {"swiglu": two_thirds(int(width * ratio)), "swiglu_full": int(width * ratio)}
        for mlp, gated in widths.items():
            if gated == hidden and given in (None, mlp):
                return {"mlp": mlp, "mlp_ratio": ratio}
    mlp = given or ("swiglu_full" if hidden % 8 else "swiglu")
    return {"mlp": mlp, "mlp_ratio": _ratio(hidden * 3 // 2 if mlp == "swiglu" else hidden, width)}


def _ratio(hidden: int, width: int) -> float:
    ratio = hidden / width
    # int(width * ratio) must be the hidden width: 6144 / 1408 is rounded
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _levels(tensors: Mapping[str, Tensor], overrides: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the blocks of V-JEPA 2.1 that have their own norm, by the published depths."""
    count, depth = count_modules(tensors, "norms_block"), count_modules(tensors, "blocks")
    if not count or "levels" in overrides:
        return {}
    levels = (depth - 1,) if count == 1 else LEVELS.get(depth, ())
    if len(levels) != count:
        raise CheckpointError(
            f"{count} norms in norms_block, and depth {depth} is not published, so their blocks are unknown. "
            f"Give levels=... (--levels of vjepa convert), {count} ascending blocks that end with {depth - 1}."
        )
    return {"levels": levels}


def _entrance(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the widths of input and output of a predictor; only V-JEPA 2.1's projects the context too."""
    if "predictor_proj_context.weight" not in tensors:
        return {"encoder_dim": needed(tensors, "predictor_embed.weight").shape[1]}
    if "predictor_embed.0.weight" in tensors:
        encoder_dim, all_levels = tensors["predictor_embed.0.weight"].shape
        levels = all_levels // encoder_dim
    else:
        encoder_dim, levels = needed(tensors, "predictor_embed.weight").shape[1], 1
    out_dim = needed(tensors, "predictor_proj.weight").shape[0] // levels
    wider = {"out_dim": out_dim} if out_dim != encoder_dim else {}
    return {"encoder_dim": encoder_dim, "num_levels": levels, **wider}


def _stored_heads(tensors: Mapping[str, Tensor], stem: str, width: int) -> dict[str, int]:
    """Read the heads from stored frequencies: half a third of a head's channels, rounded down twice."""
    key = f"{stem}.0.{FREQUENCIES}"
    if key not in tensors:
        return {}
    count = len(tensors[key])
    fitting = [n for n in range(1, width + 1) if width % n == 0 and width // n // 3 // 2 == count]
    return {"num_heads": fitting[0]} if len(fitting) == 1 else {}


def _positions(
    tensors: Mapping[str, Tensor], video: bool, predictor: Mapping[str, Tensor], given: str | None
) -> tuple[str, TokenGrid | None]:
    """Return the position style of an encoder, and its native grid if a table determines it."""
    known = given or _rotary_style(tensors)
    if "pos_embed" not in tensors:
        return known or "rope", None
    table = tensors["pos_embed"]
    if known is not None and not known.startswith("sincos"):
        return known, unused_grid(table)
    if given is None and video:
        if predictor and "predictor_pos_embed" not in predictor:
            return "rope", unused_grid(table)
        grid = unused_grid(table)
        if not predictor and grid is not None and (grid.h, grid.w) in UNUSED_PLANES:
            raise AmbiguousPositionsError(
                "pos_embed is added to the tokens in V-JEPA 1, and unused in V-JEPA 2's files; the file holds no "
                "predictor that would decide. Give position='sincos' or position='rope' (--position of vjepa convert)."
            )
    return recognise(table, VIDEO_LAYOUTS if video else IMAGE_LAYOUTS, given)


def _rotary_style(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the rotary style that other tensors imply, whether or not there is a table."""
    if f"blocks.0.{FREQUENCIES}" in tensors:
        return "rope_stored"
    return "rope_interpolated" if "norms_block.0.weight" in tensors else None
