"""Files of a transformers folder: one file of tensors, or shards with an index."""

from __future__ import annotations

from pathlib import Path

from vjepa.checkpoints.opening import names_in, read_json, safetensors_keys
from vjepa.checkpoints.strict import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def files_by_key(folder: Path) -> dict[str, Path]:
    """Return the file that holds each tensor."""
    index = folder / INDEX
    whole = folder / WEIGHTS
    if not index.is_file():
        if not whole.is_file():
            raise CheckpointError(
                f"{folder} has no {WEIGHTS} and no {INDEX}; it holds {names_in(folder)}. Save it with safetensors."
            )
        return dict.fromkeys(safetensors_keys(whole), whole)
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index} has no weight_map of keys to files.")
    for name in sorted(set(shards.values())):
        if Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which is not a file of its folder.")
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} has no {name}, a shard that {INDEX} names. Download it, or all files again."
            )
    held = {(name, key) for name in set(shards.values()) for key in safetensors_keys(folder / name)}
    listed = {(name, key) for key, name in shards.items()}
    if wrong := sorted(held ^ listed):
        name, key = wrong[0]
        raise CheckpointError(
            f"{index} and {name} disagree about {key} and {len(wrong) - 1} more. Download both again."
        )
    return {key: folder / name for key, name in shards.items()}
