"""Files of Meta's code: training checkpoints and released files of I-JEPA, all V-JEPAs, and their probes.

Their keys are ours behind a prefix that data parallelism and a wrapper put there (`module.backbone.`; `module.`
in I-JEPA's files and before the predictor of V-JEPA 2-AC). I-JEPA's one mask token is `mask_token`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vjepa.checkpoints.architecture import encoder_arguments, predictor_arguments, probe_arguments
from vjepa.checkpoints.source import Contents, Part, Source, kind_of, parts_in
from vjepa.checkpoints.strict import CheckpointError, few
from vjepa.files import replacing
from vjepa.models.positions import additive_table
from vjepa.types import TokenGrid

# entry of a file -> what it holds. The moving average goes by two names; `encoder` is the network trained.
ENTRIES: dict[str, Part] = {
    "target_encoder": "encoder",
    "ema_encoder": "encoder",
    "encoder": "context_encoder",
    "predictor": "predictor",
    "classifier": "probe",
    "classifiers": "probe",
}
# key of a file that is one network and nothing else -> which
BARE: dict[str, Part] = {
    "patch_embed.proj.weight": "encoder",
    "predictor_embed.weight": "predictor",
    "predictor_embed.0.weight": "predictor",  # V-JEPA 2.1's
    "pooler.query_tokens": "probe",
}
WRITTEN: dict[Part, list[str]] = {
    "encoder": ["target_encoder", "module.backbone."],
    "context_encoder": ["encoder", "module.backbone."],
    "predictor": ["predictor", "module.backbone."],
    "probe": ["classifiers", "module."],
}
SHALLOW_PROBE = ["classifier", "module."]  # V-JEPA 1's, of depth 1
UNWRAPPED = "module."  # I-JEPA's networks and the predictor of V-JEPA 2-AC
ONE_MASK_TOKEN, FIRST_MASK_TOKEN = "mask_token", "mask_tokens.0"
PREFIX = re.compile(r"^((module|backbone|_orig_mod)\.)*")
PATCH, TABLE, PREDICTOR_TABLE = "patch_embed.proj.weight", "pos_embed", "predictor_pos_embed"
UNUSED_PROJECTION = "pooler.cross_attention_block.xattn.proj."  # of V-JEPA 1's probes, never applied


class MetaFile(Source):
    """A file of Meta's.

    Args:
        path: The file.
        content: What it holds.
        index: Which probe to take of a file with several.
    """

    def __init__(self, path: Path, content: Mapping[str, Any], *, index: int | None = None) -> None:
        self.path = path
        self._states: dict[Part, dict[str, Tensor]] = {}
        self.origin = {}
        for entry, value in _entries(content).items():
            part = ENTRIES.get(entry, BARE.get(entry))
            assert part is not None
            if part in self._states:
                raise CheckpointError(
                    f"{path} has both `{self.origin[part][0]}` and `{entry}`: keep one of them."
                )
            state = _probe_of(value, index, path) if entry == "classifiers" else value
            self._states[part], prefix = _stripped(state, f"{path}, entry `{entry}`")
            if part == "predictor":
                self._states[part] = _renamed(self._states[part], ONE_MASK_TOKEN, FIRST_MASK_TOKEN)
            self.origin[part] = [entry if entry in ENTRIES else "", prefix]
        self.parts = parts_in(list(self._states))
        self.format = "Meta checkpoint: " + ", ".join(
            f"`{self.origin[part][0] or part}`" for part in self.parts
        )
        plain = {k: content[k] for k in ("epoch",) if isinstance(content.get(k), int)}
        left_out = [str(k) for k in content if k not in ENTRIES and not isinstance(content[k], Tensor)]
        probes = content.get("classifiers")
        several = {"num_probes": len(probes)} if isinstance(probes, list) and len(probes) > 1 else {}
        self.facts = {**plain, **several, "left_out": left_out}

    def arguments(self, part: Part, overrides: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._read(part, overrides)
        except CheckpointError as error:
            raise type(error)(f"{self.path}, {part}: {error}") from error

    def tensors(self, part: Part, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Weights of a network; those of an image encoder as tubelets of one frame."""
        unused = self.rest(part, arguments)
        found = {k: v for k, v in self._states[part].items() if k not in unused}
        if part in ("encoder", "context_encoder") and PATCH in found and found[PATCH].ndim == 4:
            found[PATCH] = found[PATCH].unsqueeze(2)
        return found

    def rest(self, part: Part, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tables of positions that rotary networks carry, and V-JEPA 1's idle projection."""
        state = self._states[part]
        if part == "probe":
            return {k: v for k, v in state.items() if k.startswith(UNUSED_PROJECTION)}
        if part == "predictor":
            return {k: v for k, v in state.items() if k == PREDICTOR_TABLE}
        idle = TABLE in state and not arguments["position"].startswith("sincos")
        return {TABLE: state[TABLE]} if idle else {}

    def absent(self, part: Part) -> str:
        """Why a part cannot be loaded."""
        entry = " or ".join(f"`{name}`" for name, held in ENTRIES.items() if held == part)
        held = few([self.origin[p][0] or p for p in self.parts])
        advice = ""
        if kind_of(part) == "encoder" and {"encoder", "context_encoder"} & set(self.parts):
            other = "context" if part == "encoder" else "target"
            advice = f" Give which={other!r}."
        return f"{self.path} has no {entry}; it holds {held}.{advice}"

    def _read(self, part: Part, overrides: Mapping[str, Any]) -> dict[str, Any]:
        state = self._states[part]
        if part == "predictor":
            return predictor_arguments(state, overrides=overrides)
        if part == "probe":
            return probe_arguments(state, overrides=overrides)
        return encoder_arguments(state, predictor=self._states.get("predictor", {}), overrides=overrides)


def is_meta(content: object) -> bool:
    """Whether the content of a file is of Meta's making."""
    return isinstance(content, Mapping) and bool(_entries(content))


def write_meta(contents: Contents, path: Path) -> None:
    """Write a file that Meta's code opens, whole or not at all."""
    file: dict[str, Any] = {}
    for part, tensors in contents.tensors.items():
        arguments = contents.arguments[kind_of(part)]
        entry, prefix = contents.origin.get(part) or _place_of(part, arguments)
        state = {**tensors, **contents.rest.get(part, {})}
        if PATCH in state and arguments["num_frames"] == 1:
            state[PATCH] = state[PATCH].squeeze(2)
        position = arguments.get("position", "")
        if part == "predictor" and position.startswith("sincos"):
            state.setdefault(PREDICTOR_TABLE, _predictor_table(contents))
        if part == "predictor" and position == "sincos_wh":
            state = _renamed(state, FIRST_MASK_TOKEN, ONE_MASK_TOKEN)
        prefixed = {prefix + key: _alone(value) for key, value in state.items()}
        if not entry:
            file |= prefixed
        else:
            file[entry] = [prefixed] if entry == "classifiers" else prefixed
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(file, temporary)


def _place_of(part: Part, arguments: Mapping[str, Any]) -> list[str]:
    """Entry and prefix of a network that comes from no file of theirs."""
    if part == "probe" and arguments["depth"] == 1:
        return SHALLOW_PROBE
    entry, prefix = WRITTEN[part]
    bare = arguments.get("position") == "sincos_wh" or "action_dim" in arguments
    return [entry, UNWRAPPED if bare else prefix]


def _renamed(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new if key == old else key: value for key, value in state.items()}


def _entries(content: Mapping[str, Any]) -> dict[str, Any]:
    """The networks in a file, by entry; a file that is one network has it under the key that gives it away."""
    found = {k: content[k] for k in ENTRIES if isinstance(content.get(k), Mapping | list)}
    if found or not all(isinstance(value, Tensor) for value in content.values()):
        return found
    keys = {PREFIX.sub("", str(key)) for key in content}
    return {key: content for key in BARE if key in keys}


def _probe_of(probes: Any, index: int | None, path: Path) -> Any:
    if isinstance(probes, Mapping):
        return probes
    if not probes:
        raise CheckpointError(f"{path} holds no probe: `classifiers` is empty.")
    if len(probes) > 1 and index is None:
        raise CheckpointError(
            f"{path} holds {len(probes)} probes that were trained side by side. Say which with index=0 to "
            f"index={len(probes) - 1}."
        )
    if not -len(probes) <= (index or 0) < len(probes):
        raise CheckpointError(f"{path} holds {len(probes)} probes; there is no index={index}.")
    return probes[index or 0]


def _stripped(state: object, where: str) -> tuple[dict[str, Tensor], str]:
    """Tensors without the prefix of their keys, and the prefix."""
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{where}: no tensors by name.")
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise CheckpointError(f"{where}: no tensors by name, or more than those.")
    stripped = {PREFIX.sub("", key): value for key, value in state.items()}
    if len(stripped) != len(state):
        raise CheckpointError(f"{where}: keys that differ by their prefix alone.")
    first = PREFIX.match(next(iter(state)))
    return stripped, first[0] if first else ""


def _alone(tensor: Tensor) -> Tensor:
    """A tensor with a storage of its own size: torch would write all of a larger one."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _predictor_table(contents: Contents) -> Tensor:
    """Positions of an additive predictor, which ours makes anew for every clip."""
    if "encoder" not in contents.arguments:
        raise CheckpointError("a predictor with additive positions is written with its encoder: give both.")
    encoder, predictor = contents.arguments["encoder"], contents.arguments["predictor"]
    size = encoder["img_size"]
    height, width = (size, size) if isinstance(size, int) else size
    patch = encoder["patch_size"]
    tubelet = min(encoder["tubelet_size"], encoder["num_frames"])
    grid = TokenGrid(t=encoder["num_frames"] // tubelet, h=height // patch, w=width // patch)
    return additive_table(predictor["position"], grid, predictor["embed_dim"]).float()[None]
