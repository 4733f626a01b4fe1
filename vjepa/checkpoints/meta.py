"""Meta files: training checkpoints and released files of I-JEPA, all V-JEPAs, and their probes.

Their keys are ours after a prefix of data parallelism and a wrapper: `module.backbone.`, or `module.` in files of
I-JEPA and for the predictor of V-JEPA 2-AC. I-JEPA's only mask token is `mask_token`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vjepa.checkpoints.architecture import (
    UNUSED_PROJECTION,
    blocks_on,
    encoder_arguments,
    predictor_arguments,
    probe_arguments,
)
from vjepa.checkpoints.source import Contents, NetworkName, Source, in_order, kind_of
from vjepa.checkpoints.strict import CheckpointError, few
from vjepa.files import replacing
from vjepa.models.config import height_and_width
from vjepa.models.positions import additive_table
from vjepa.types import TokenGrid

# entry of a file -> network. The moving average has two names; `encoder` is the network trained
ENTRIES: dict[str, NetworkName] = {
    "target_encoder": "encoder",
    "ema_encoder": "encoder",
    "encoder": "context_encoder",
    "predictor": "predictor",
    "classifier": "probe",
    "classifiers": "probe",
}
# key of a file that is only one network -> which network
BARE: dict[str, NetworkName] = {
    "patch_embed.proj.weight": "encoder",
    "predictor_embed.weight": "predictor",
    "predictor_embed.0.weight": "predictor",  # V-JEPA 2.1's
    "pooler.query_tokens": "probe",
}
WRITTEN: dict[NetworkName, list[str]] = {
    "encoder": ["target_encoder", "module.backbone."],
    "context_encoder": ["encoder", "module.backbone."],
    "predictor": ["predictor", "module.backbone."],
    "probe": ["classifiers", "module."],
}
FIRST_PROBE = ["classifier", "module."]  # V-JEPA 1's
UNWRAPPED = "module."  # I-JEPA's networks and the predictor of V-JEPA 2-AC
ONE_MASK_TOKEN, FIRST_MASK_TOKEN = "mask_token", "mask_tokens.0"
PREFIX = re.compile(r"^((module|backbone|_orig_mod)\.)*")
PATCH, TABLE, PREDICTOR_TABLE = "patch_embed.proj.weight", "pos_embed", "predictor_pos_embed"


class MetaFile(Source):
    """A file in the format of Meta's code; `index` chooses one of several probes."""

    def __init__(self, path: Path, content: Mapping[str, Any], *, index: int | None = None) -> None:
        self.path = path
        self._states: dict[NetworkName, dict[str, Tensor]] = {}
        self.origin = {}
        for entry, value in _entries(content).items():
            name = ENTRIES.get(entry, BARE.get(entry))
            assert name is not None
            if name in self._states:
                raise CheckpointError(
                    f"{path} has both `{self.origin[name][0]}` and `{entry}`: keep one of them."
                )
            state = _probe_of(value, index, path) if entry == "classifiers" else value
            self._states[name], prefix = _stripped(state, f"{path}, entry `{entry}`")
            if name == "predictor":
                self._states[name] = _renamed(self._states[name], ONE_MASK_TOKEN, FIRST_MASK_TOKEN)
            self.origin[name] = [entry if entry in ENTRIES else "", prefix]
        self.networks = in_order(list(self._states))
        self.format = "Meta checkpoint: " + ", ".join(
            f"`{self.origin[name][0] or name}`" for name in self.networks
        )
        plain = {k: content[k] for k in ("epoch",) if isinstance(content.get(k), int)}
        left_out = [str(k) for k in content if k not in ENTRIES and not isinstance(content[k], Tensor)]
        probes = content.get("classifiers")
        several = {"num_probes": len(probes)} if isinstance(probes, list) and len(probes) > 1 else {}
        self.facts = {**plain, **several, "left_out": left_out}

    def arguments(self, name: NetworkName, overrides: Mapping[str, Any]) -> dict[str, Any]:
        state = self._states[name]
        try:
            if name == "predictor":
                return predictor_arguments(state, overrides=overrides)
            if name == "probe":
                return probe_arguments(state, overrides=overrides)
            return encoder_arguments(state, predictor=self._states.get("predictor", {}), overrides=overrides)
        except CheckpointError as error:
            raise type(error)(f"{self.path}, {name}: {error}") from error

    def tensors(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the weights of a network; an image encoder gets tubelets of one frame."""
        unused = self.rest(name, arguments)
        found = {k: v for k, v in self._states[name].items() if k not in unused}
        if name in ("encoder", "context_encoder") and PATCH in found and found[PATCH].ndim == 4:
            found[PATCH] = found[PATCH].unsqueeze(2)
        return found

    def rest(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the tables of positions in rotary networks, and V-JEPA 1's unused projection."""
        state = self._states[name]
        if name == "probe":
            return {k: v for k, v in state.items() if k.startswith(UNUSED_PROJECTION)}
        if name == "predictor":
            return {k: v for k, v in state.items() if k == PREDICTOR_TABLE}
        idle = TABLE in state and not arguments["position"].startswith("sincos")
        return {TABLE: state[TABLE]} if idle else {}

    def absent(self, name: NetworkName) -> str:
        entry = " or ".join(f"`{entry}`" for entry, held in ENTRIES.items() if held == name)
        held = few([self.origin[p][0] or p for p in self.networks])
        advice = ""
        if kind_of(name) == "encoder" and {"encoder", "context_encoder"} & set(self.networks):
            other = "context" if name == "encoder" else "target"
            advice = f" Give which={other!r}."
        return f"{self.path} has no {entry}; it holds {held}.{advice}"


def is_meta(content: object) -> bool:
    """Return whether the content of a file has the format of Meta's code."""
    return isinstance(content, Mapping) and bool(_entries(content))


def write_meta(contents: Contents, path: Path) -> None:
    """Write a file that Meta's code opens, whole or not at all."""
    file: dict[str, Any] = {}
    for name, tensors in contents.tensors.items():
        arguments = contents.arguments[kind_of(name)]
        entry, prefix = contents.origin.get(name) or _place_of(name, arguments)
        state = {**tensors, **contents.rest.get(name, {})}
        if name == "probe":
            _check_probe(arguments, state)
        if PATCH in state and arguments["num_frames"] == 1:
            state[PATCH] = state[PATCH].squeeze(2)
        position = arguments.get("position", "")
        if name == "predictor" and position.startswith("sincos"):
            state.setdefault(PREDICTOR_TABLE, _predictor_table(contents))
        if name == "predictor" and position == "sincos_wh":
            state = _renamed(state, FIRST_MASK_TOKEN, ONE_MASK_TOKEN)
        prefixed = {prefix + key: _compact(value) for key, value in state.items()}
        if not entry:
            file |= prefixed
        else:
            file[entry] = [prefixed] if entry == "classifiers" else prefixed
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(file, temporary)


def _place_of(name: NetworkName, arguments: Mapping[str, Any]) -> list[str]:
    """Return the entry and prefix of a network that was not read from a Meta file."""
    if name == "probe" and (arguments["depth"] == 1 or arguments.get("blocks_on") == "query"):
        return FIRST_PROBE
    entry, prefix = WRITTEN[name]
    bare = arguments.get("position") == "sincos_wh" or "action_dim" in arguments
    return [entry, UNWRAPPED if bare else prefix]


def _check_probe(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Check that a deep probe's keys show where its blocks run, as readers of the file take it from them."""
    shown = blocks_on(state, arguments["depth"]).get("blocks_on", "tokens")
    meant = arguments.get("blocks_on", "tokens") if arguments["depth"] > 1 else "tokens"
    if shown != meant:
        raise CheckpointError(
            f"this probe has blocks_on={meant!r}, and its keys in a file of Meta would say {shown!r}: only "
            f"probes of V-JEPA 1 have {UNUSED_PROJECTION}weight. Build it with unused_proj={meant == 'query'}, or "
            "convert to native."
        )


def _renamed(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new if key == old else key: value for key, value in state.items()}


def _entries(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the networks in a file by entry; a file of one network gets an entry by its telltale key."""
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


def _stripped(state: Any, where: str) -> tuple[dict[str, Tensor], str]:
    """Remove the prefix of the keys; return the tensors and the prefix."""
    named = isinstance(state, Mapping) and bool(state)
    if not named or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise CheckpointError(f"{where}: does not hold only tensors by name.")
    stripped = {PREFIX.sub("", key): value for key, value in state.items()}
    if len(stripped) != len(state):
        raise CheckpointError(f"{where}: keys differ only by their prefix.")
    first = PREFIX.match(next(iter(state)))
    return stripped, first[0] if first else ""


def _compact(tensor: Tensor) -> Tensor:
    """Return a tensor whose storage has its size: torch would write all of a larger storage."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _predictor_table(contents: Contents) -> Tensor:
    """Return the positions of an additive predictor, which our predictor computes for every clip."""
    if "encoder" not in contents.arguments:
        raise CheckpointError("a predictor with additive positions is written with its encoder: give both.")
    encoder, predictor = contents.arguments["encoder"], contents.arguments["predictor"]
    height, width = height_and_width(encoder["img_size"])
    patch = encoder["patch_size"]
    tubelet = min(encoder["tubelet_size"], encoder["num_frames"])
    grid = TokenGrid(t=encoder["num_frames"] // tubelet, h=height // patch, w=width // patch)
    return additive_table(predictor["position"], grid, predictor["embed_dim"]).float()[None]
