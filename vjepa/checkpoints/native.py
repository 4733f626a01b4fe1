"""Our own files: a folder to use (safetensors and a config), and the checkpoint a run resumes from.

A folder holds `encoder.safetensors` (the target encoder, the one to use), `context_encoder.safetensors` (the
one that was trained), `predictor.safetensors`, `probe.safetensors`, whichever there are, and `config.json`.
`rest.safetensors` keeps what a converted checkpoint had and our networks have no use for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vjepa.checkpoints.opening import names_in, read_json, read_safetensors, safetensors_keys
from vjepa.checkpoints.source import PARTS, REST, Contents, Part, Source, kind_of, rest_of
from vjepa.checkpoints.strict import CheckpointError, key_diff
from vjepa.files import write_tensors, write_text
from vjepa.models.files import CONFIG, FORMAT

__all__ = ["NativeFolder", "RunFile", "key_diff", "write_native"]

PREFIXES: dict[Part, str] = {
    "encoder": "objective.target_encoder.",
    "context_encoder": "objective.context_encoder.",
    "predictor": "objective.predictor.",
}


class NativeFolder(Source):
    """A folder written by `vjepa fit`, `save_pretrained` or `vjepa convert --to native`."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self._config = path, config
        self.format = f"native folder, format {config.get('format')}"
        self.parts = tuple(part for part in PARTS if self._file(part).is_file())
        if not self.parts:
            raise CheckpointError(f"{path} has no encoder.safetensors; it holds {names_in(path)}.")
        self.facts: dict[str, Any] = {}
        self.origin: dict[str, list[str]] = dict(config.get("origin", {}))
        self.label_names = tuple(config.get("label_names", ()))

    def arguments(self, part: Part, overrides: Mapping[str, Any]) -> dict[str, Any]:
        if kind_of(part) not in self._config:
            raise CheckpointError(f"{self.path / CONFIG} does not describe the {part}.")
        return {**self._config[kind_of(part)], **overrides}

    def tensors(self, part: Part, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        return read_safetensors(self._file(part))

    def rest(self, part: Part, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        return read_rest(self.path / REST, part)

    def absent(self, part: Part) -> str:
        return f"{self.path} has no {self._file(part).name}; it holds {names_in(self.path)}."

    def _file(self, part: Part) -> Path:
        return self.path / f"{part}.safetensors"


class RunFile(Source):
    """A `.ckpt` of a run: our objective's state, with the optimiser's beside it."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path, self._config = path, content["vjepa"]
        self._state: Mapping[str, Tensor] = content["state_dict"]
        if not isinstance(self._config, Mapping) or not isinstance(self._state, Mapping):
            raise CheckpointError(
                f"{path} is a damaged checkpoint of a run: no networks are described in it."
            )
        self.format = "checkpoint of a vjepa run"
        self.parts = tuple(
            part for part, prefix in PREFIXES.items() if any(k.startswith(prefix) for k in self._state)
        )
        if not self.parts:
            raise CheckpointError(f"{path} is of a run, and holds no network.")
        self.facts = {
            "step": content.get("global_step"),
            "epoch": content.get("epoch"),
            "optimizer_state": bool(content.get("optimizer_states")),
        }
        self.origin: dict[str, list[str]] = {}

    def arguments(self, part: Part, overrides: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._config[kind_of(part)], **overrides}

    def tensors(self, part: Part, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        prefix = PREFIXES[part]
        return {k.removeprefix(prefix): v for k, v in self._state.items() if k.startswith(prefix)}

    def rest(self, part: Part, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        return {}

    def absent(self, part: Part) -> str:
        return f"{self.path} is of a run that has no {part}; it holds {', '.join(self.parts)}."


def read_rest(file: Path, part: Part) -> dict[str, Tensor]:
    """What a converted checkpoint has of a part beside our networks; nothing where there is no such file."""
    if not file.is_file():
        return {}
    keys = [key for key in safetensors_keys(file) if key.startswith(f"{part}.")]
    return rest_of(part, read_safetensors(file, keys))


def native_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder of ours."""
    file = folder / CONFIG
    if not file.is_file():
        advice = f" It looks like the folder of a run: give {inner}." if (inner := _inside(folder)) else ""
        raise CheckpointError(f"{folder} has no {CONFIG}: no folder of networks.{advice}")
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
    """What to use of a run's folder: its export, or the state of a run that has not ended."""
    places = (run / "export", run / "checkpoints" / "last.ckpt")
    return next((place for place in places if place.exists()), None)


def write_native(contents: Contents, folder: Path) -> None:
    """Write a folder that `vjepa.load_encoder` opens."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, tensors in contents.tensors.items():
        write_tensors(tensors, folder / f"{part}.safetensors")
    if rest := contents.rest_flat():
        write_tensors(rest, folder / REST)
    write_text(json.dumps(contents.describe(), indent=2), folder / CONFIG)
