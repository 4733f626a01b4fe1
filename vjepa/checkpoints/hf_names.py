"""Names of a V-JEPA 2's tensors in transformers, and our names for them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vjepa.checkpoints.strict import CheckpointError

BACKBONE = "vjepa2."  # prefix of encoder and predictor in a classification model
STACKED = "predictor.embeddings.mask_tokens"  # all mask tokens in one tensor (n, 1, 1, P)


def _block(ours: str, theirs: str) -> list[tuple[str, list[str]]]:
    """Return the names of one transformer block of an encoder or predictor."""
    return [
        (f"{ours}.norm1.@", [f"{theirs}.norm1.@"]),
        (f"{ours}.norm2.@", [f"{theirs}.norm2.@"]),
        (f"{ours}.attn.qkv.@", [f"{theirs}.attention.{name}.@" for name in ("query", "key", "value")]),
        (f"{ours}.attn.proj.@", [f"{theirs}.attention.proj.@"]),
        (f"{ours}.mlp.fc1.@", [f"{theirs}.mlp.fc1.@"]),
        (f"{ours}.mlp.fc2.@", [f"{theirs}.mlp.fc2.@"]),
    ]


CROSS, HF_CROSS = "pooler.cross_attention_block", "pooler.cross_attention_layer"
POOL, HF_POOL = "pooler.blocks.#", "pooler.self_attention_layers.#"
# our name -> theirs, which are concatenated in ours; `#` is a number, `@` is weight or bias
NAMES: dict[str, list[tuple[str, list[str]]]] = {
    "encoder": [
        ("patch_embed.proj.@", ["encoder.embeddings.patch_embeddings.proj.@"]),
        *_block("blocks.#", "encoder.layer.#"),
        ("norm.@", ["encoder.layernorm.@"]),
    ],
    "predictor": [
        ("predictor_embed.@", ["predictor.embeddings.predictor_embeddings.@"]),
        *_block("predictor_blocks.#", "predictor.layer.#"),
        ("predictor_norm.@", ["predictor.layernorm.@"]),
        ("predictor_proj.@", ["predictor.proj.@"]),
    ],
    "probe": [
        ("pooler.query_tokens", ["pooler.query_tokens"]),
        (f"{CROSS}.norm1.@", [f"{HF_CROSS}.layer_norm1.@"]),
        (f"{CROSS}.norm2.@", [f"{HF_CROSS}.layer_norm2.@"]),
        (f"{CROSS}.xattn.q.@", [f"{HF_CROSS}.cross_attn.q_proj.@"]),
        (f"{CROSS}.xattn.kv.@", [f"{HF_CROSS}.cross_attn.{name}_proj.@" for name in "kv"]),
        (f"{CROSS}.mlp.fc1.@", [f"{HF_CROSS}.mlp.fc1.@"]),
        (f"{CROSS}.mlp.fc2.@", [f"{HF_CROSS}.mlp.fc2.@"]),
        (f"{POOL}.norm1.@", [f"{HF_POOL}.layer_norm1.@"]),
        (f"{POOL}.norm2.@", [f"{HF_POOL}.layer_norm2.@"]),
        (f"{POOL}.attn.qkv.@", [f"{HF_POOL}.self_attn.{name}_proj.@" for name in "qkv"]),
        (f"{POOL}.attn.proj.@", [f"{HF_POOL}.self_attn.out_proj.@"]),
        (f"{POOL}.mlp.fc1.@", [f"{HF_POOL}.mlp.fc1.@"]),
        (f"{POOL}.mlp.fc2.@", [f"{HF_POOL}.mlp.fc2.@"]),
        ("linear.@", ["classifier.@"]),
    ],
}
KIND_PREFIXES = {"encoder": ("encoder.",), "predictor": ("predictor.",), "probe": ("pooler.", "classifier.")}


def is_of(kind: str, key: str) -> bool:
    """Return whether one of their keys belongs to a network of that kind."""
    return key.removeprefix(BACKBONE).startswith(KIND_PREFIXES[kind])


def our_name(kind: str, key: str) -> tuple[str, list[str]] | None:
    """Return our name for one of their keys, and all of their keys that it joins."""
    for ours, theirs in NAMES[kind]:
        for pattern in theirs:
            if (found := _match(pattern, key)) is not None:
                return _put(ours, found), [_put(name, found) for name in theirs]
    return None


def their_rows(kind: str, key: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """Return their names for one of our keys, with the rows of each; empty for a mask token."""
    if key.startswith("mask_tokens."):
        return []
    for ours, theirs in NAMES[kind]:
        if (found := _match(ours, key)) is not None:
            rows = value.detach().chunk(len(theirs))
            return [(_put(name, found), part) for name, part in zip(theirs, rows, strict=True)]
    raise CheckpointError(f"transformers' V-JEPA 2 has no name for {key}. Convert to native or meta.")


def _match(pattern: str, key: str) -> dict[str, str] | None:
    escaped = re.escape(pattern).replace(r"\#", "#")
    found = re.fullmatch(escaped.replace("#", r"(?P<number>\d+)").replace("@", "(?P<leaf>weight|bias)"), key)
    return None if found is None else found.groupdict()


def _put(pattern: str, found: Mapping[str, str]) -> str:
    return pattern.replace("#", found.get("number", "")).replace("@", found.get("leaf", ""))
