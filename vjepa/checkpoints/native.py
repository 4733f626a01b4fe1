"""Native formats: the folder of networks, and the checkpoint from which a run resumes.

A folder holds `config.json` and any of `encoder.safetensors` (the target encoder, the one to use),
`context_encoder.safetensors` (the one trained), `predictor.safetensors` and `probe.safetensors`. After a conversion,
`rest.safetensors` holds the tensors that our networks do not use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vjepa.checkpoints.architecture import blocks_on
from vjepa.checkpoints.opening import names_in, read_json, read_safetensors, safetensors_keys
from vjepa.checkpoints.source import CARD_ENTRIES, NETWORK_NAMES, REST, Contents, NetworkName, Source
from vjepa.checkpoints.strict import CheckpointError
from vjepa.files import write_tensors, write_text
from vjepa.models.files import CLIPS, CONFIG, FORMAT

PREFIXES: dict[NetworkName, str] = {
    "encoder": "objective.target_encoder.",
    "context_encoder": "objective.context_encoder.",
    "predictor": "objective.predictor.",
}


class NativeFolder(Source):
    """A folder written by `vjepa fit`, `save_pretrained` or `vjepa convert --to native`."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self._config = path, config
        self.format = f"native folder, format {config.get('format')}"
        self.networks = tuple(name for name in NETWORK_NAMES if self._file(name).is_file())
        if not self.networks:
            raise CheckpointError(f"{path} has no encoder.safetensors; it holds {names_in(path)}.")
        self.origin = dict(config.get("origin", {}))
        self.label_names = tuple(config.get("label_names", ()))
        self.card = {entry: config[entry] for entry in CARD_ENTRIES if entry in config}

    def arguments(self, name: NetworkName, overrides: Mapping[str, Any]) -> dict[str, Any]:
        found = super().arguments(name, overrides)
        if name == "probe" and "blocks_on" not in found:  # converted before folders said it
            found |= blocks_on(self.rest(name, found), found.get("depth", 1))
        return found

    def tensors(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        return read_safetensors(self._file(name))

    def rest(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        return read_rest(self.path / REST, name)

    def _file(self, name: NetworkName) -> Path:
        return self.path / f"{name}.safetensors"


class RunFile(Source):
    """A `.ckpt` of a run, with the state of the objective and of the optimiser."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path, self._config = path, content["vjepa"]
        self._state: Mapping[str, Tensor] = content["state_dict"]
        if not isinstance(self._config, Mapping) or not isinstance(self._state, Mapping):
            raise CheckpointError(
                f"{path} is a damaged checkpoint of a run: it does not describe its networks."
            )
        self.format = "checkpoint of a vjepa run"
        self.card = {entry: self._config[entry] for entry in (CLIPS,) if entry in self._config}
        self.networks = tuple(
            name for name, prefix in PREFIXES.items() if any(k.startswith(prefix) for k in self._state)
        )
        if not self.networks:
            raise CheckpointError(f"{path} is a checkpoint of a run and holds no network.")
        self.facts = {
            "step": content.get("global_step"),
            "epoch": content.get("epoch"),
            "optimizer_state": bool(content.get("optimizer_states")),
        }

    def tensors(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        prefix = PREFIXES[name]
        return {k.removeprefix(prefix): v for k, v in self._state.items() if k.startswith(prefix)}


def read_rest(file: Path, name: NetworkName) -> dict[str, Tensor]:
    """Return a network's tensors in `rest.safetensors`, or nothing if the file is missing."""
    if not file.is_file():
        return {}
    keys = [key for key in safetensors_keys(file) if key.startswith(f"{name}.")]
    return {k.removeprefix(f"{name}."): v for k, v in read_safetensors(file, keys).items()}


def native_config(folder: Path) -> dict[str, Any]:
    """Read the `config.json` of a native folder."""
    file = folder / CONFIG
    if not file.is_file():
        advice = f" It looks like the folder of a run: give {inner}." if (inner := _inside(folder)) else ""
        raise CheckpointError(f"{folder} has no {CONFIG}, so it is not a folder of networks.{advice}")
    config = read_json(file)
    if not {"encoder", "predictor", "probe"} & config.keys():
        raise CheckpointError(f"{file} does not describe an encoder.")
    if not isinstance(config.get("format", FORMAT), int) or config.get("format", FORMAT) > FORMAT:
        raise CheckpointError(
            f"{file} has format {config['format']!r}; this vjepa reads formats to {FORMAT}. Update vjepa."
        )
    for kind in ("encoder", "predictor", "probe"):
        if not isinstance(config.get(kind, {}), dict):
            raise CheckpointError(f"{file}: {kind} is {config[kind]!r}, not the arguments of a network.")
    return config


def _inside(run: Path) -> Path | None:
    """Return what to load from a run's folder: its export, or the state of a run that has not ended."""
    places = (run / "export", run / "checkpoints" / "last.ckpt")
    return next((place for place in places if place.exists()), None)


def write_native(contents: Contents, folder: Path) -> None:
    """Write a native folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in contents.tensors.items():
        write_tensors(tensors, folder / f"{name}.safetensors")
    if rest := contents.rest_flat():
        write_tensors(rest, folder / REST)
    write_text(json.dumps(contents.config(), indent=2), folder / CONFIG)
