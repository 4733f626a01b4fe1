"""transformers folders: read and write VJEPA2Model and VJEPA2ForVideoClassification.

Their config cannot express all of ours. The remainder is in `vjepa.json` beside it, and tensors without a name there
are in `rest.safetensors`; transformers reads neither.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vjepa.checkpoints.architecture import DEEP_PROBE_HEADS
from vjepa.checkpoints.hf_names import BACKBONE, KIND_PREFIXES, NAMES, STACKED, is_of, our_name, their_rows
from vjepa.checkpoints.native import read_rest
from vjepa.checkpoints.opening import read_json, read_safetensors
from vjepa.checkpoints.shards import WEIGHTS, files_by_key
from vjepa.checkpoints.source import REST, Contents, NetworkName, Source, in_order, kind_of
from vjepa.checkpoints.strict import CheckpointError, count_modules, few, grouped
from vjepa.files import write_tensors, write_text
from vjepa.models.config import height_and_width
from vjepa.models.files import CLIPS, CONFIG

UNNAMED = "LABEL_"  # transformers' own name of a class that has none, before its id
MODEL_TYPE, CARD, ASIDE = "vjepa2", "vjepa.json", "context_encoder.safetensors"
# our argument -> key of config.json, and the value of VJEPA2Config if the key is missing
ENCODER_KEYS = {
    "img_size": ("crop_size", 256),
    "patch_size": ("patch_size", 16),
    "num_frames": ("frames_per_clip", 64),
    "tubelet_size": ("tubelet_size", 2),
    "embed_dim": ("hidden_size", 1024),
    "depth": ("num_hidden_layers", 24),
    "num_heads": ("num_attention_heads", 16),
    "mlp_ratio": ("mlp_ratio", 4.0),
}
PREDICTOR_KEYS = {
    "encoder_dim": ("hidden_size", 1024),
    "embed_dim": ("pred_hidden_size", 384),
    "depth": ("pred_num_hidden_layers", 12),
    "num_heads": ("pred_num_attention_heads", 12),
    "mlp_ratio": ("pred_mlp_ratio", 4.0),
    "num_mask_tokens": ("pred_num_mask_tokens", 10),
}
# values that our networks always have; a folder with others holds another network
FIXED = {"hidden_act": "gelu", "qkv_bias": True, "layer_norm_eps": 1e-6, "in_chans": 3}

# argument -> values that their model can express, and what it has
EXPRESSIBLE: dict[str, tuple[tuple[Any, ...], str]] = {
    "position": (("rope",), "turns queries and keys by tiled angles and has no other positions"),
    "mlp": (("gelu",), "has MLPs without a gate"),
    "levels": (((), []), "has one norm for all levels and one patch embedding"),
    "num_levels": ((0,), "predicts one level of the encoder"),
    "out_dim": ((None,), "predicts the width of its own encoder"),
    "action_dim": ((), "has no predictor that takes actions"),
    "num_verbs": ((), "has one classifier"),
    "blocks_on": (("tokens",), "runs the blocks of its pooler on the tokens"),
}


class HuggingFaceFolder(Source):
    """A folder with `config.json` and `model.safetensors`, whole or in shards with an index."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path, self._config = path, config
        self._files = files_by_key(path)
        card = path / CARD
        self._card = read_json(card) if card.is_file() else {}
        main: NetworkName = self._card.get("main_encoder", "encoder")
        if main not in ("encoder", "context_encoder"):
            raise CheckpointError(f"{card}: main_encoder is {main!r}, not encoder or context_encoder.")
        kinds = {kind for kind in KIND_PREFIXES if any(is_of(kind, key) for key in self._files)}
        held = [main if kind == "encoder" else kind for kind in kinds]
        self._aside = path / ASIDE if main == "encoder" and (path / ASIDE).is_file() else None
        self.networks = in_order([*held, "context_encoder"] if self._aside else held)
        if not self.networks:
            raise CheckpointError(
                f"{path} holds no network that we know, but {few(grouped(self._files)) or 'no tensor'}."
            )
        self.format = "Hugging Face folder, " + ", ".join(config.get("architectures") or ["VJEPA2Model"])
        self.origin = dict(self._card.get("origin", {}))
        self.card = {entry: self._card[entry] for entry in (CLIPS,) if entry in self._card}
        self.label_names = _label_names(config) if "probe" in self.networks else ()

    def arguments(self, name: NetworkName, overrides: Mapping[str, Any]) -> dict[str, Any]:
        self._check_config()
        if kind_of(name) in self._card:
            return {**self._card[kind_of(name)], **overrides}
        if name == "probe":
            return {**self._probe_arguments(), **overrides}
        keys = PREDICTOR_KEYS if name == "predictor" else ENCODER_KEYS
        found = {ours: self._config.get(key, default) for ours, (key, default) in keys.items()}
        if isinstance(found.get("patch_size"), list) and len(set(found["patch_size"])) == 1:
            found["patch_size"] = found["patch_size"][0]  # theirs may be (16, 16)
        return {**found, "mlp_ratio": float(found["mlp_ratio"]), "position": "rope", **overrides}

    def tensors(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the weights; tensors that are split there and joined here are joined one by one."""
        if name == "context_encoder" and self._aside is not None:
            return read_safetensors(self._aside)
        places = self._places(kind_of(name))
        found: dict[str, Tensor] = {}
        plain: dict[Path, dict[str, str]] = defaultdict(dict)  # file -> their key -> ours
        for ours, theirs in places.items():
            if len(theirs) == 1:
                plain[self._files[theirs[0]]][theirs[0]] = ours
            else:
                found[ours] = self._joined(theirs)
        for file, keys in plain.items():
            found |= {keys[key]: tensor for key, tensor in read_safetensors(file, keys).items()}
        if STACKED in found:
            stacked = found.pop(STACKED)
            found |= {f"mask_tokens.{i}": token.clone() for i, token in enumerate(stacked)}
        return found

    def rest(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        return read_rest(self.path / REST, name)

    def _check_config(self) -> None:
        for key, value in FIXED.items():
            if self._config.get(key, value) != value:
                raise CheckpointError(
                    f"{self.path / CONFIG}: {key} is {self._config[key]!r}; V-JEPA 2's networks have {value!r}."
                )

    def _probe_arguments(self) -> dict[str, Any]:
        """Read a probe's arguments; V-JEPA 2's have 16 heads at every width, where theirs have the encoder's."""
        width = self._config.get("hidden_size", 1024)
        key = "classifier.weight"
        if key not in self._files:
            raise CheckpointError(f"{self.path}: missing: {key}, from which the architecture is read.")
        return {
            "embed_dim": width,
            "num_classes": read_safetensors(self._files[key], [key])[key].shape[0],
            "num_heads": DEEP_PROBE_HEADS.get(width, self._config.get("num_attention_heads", 16)),
            "depth": 1 + self._config.get("num_pooler_layers", 3),
        }

    def _places(self, kind: str) -> dict[str, list[str]]:
        """Map our keys to theirs and check that all exist; an unknown key is mapped to itself."""
        places: dict[str, list[str]] = {}
        stray = [key for key in self._files if not any(is_of(k, key) for k in NAMES)]
        for key in [key for key in self._files if is_of(kind, key)] + (stray if kind == "encoder" else []):
            short = key.removeprefix(BACKBONE)
            ours, theirs = our_name(kind, short) or (short, [short])
            start = key[: len(key) - len(short)]
            places[ours] = [start + name for name in theirs]
        if missing := sorted({k for keys in places.values() for k in keys} - self._files.keys()):
            raise CheckpointError(f"{self.path} is incomplete: missing: {few(grouped(missing))}.")
        return places

    def _joined(self, keys: list[str]) -> Tensor:
        """Concatenate the rows of several tensors; only these are mapped at a time."""
        found = [read_safetensors(self._files[key], [key])[key] for key in keys]
        for kind, values in (("type", [t.dtype for t in found]), ("shape", [tuple(t.shape) for t in found])):
            if len(set(values)) > 1:
                listed = ", ".join(f"{k} is {v}" for k, v in zip(keys, values, strict=True))
                raise CheckpointError(f"{self.path}: other {kind}: {listed}; they must be equal.")
        return torch.cat(found)


def _label_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes in the order of their ids; empty if transformers made them up."""
    names = config.get("id2label") or {}
    ordered = tuple(str(names[i]) for i in sorted(names, key=int))
    return () if all(name == f"{UNNAMED}{i}" for i, name in enumerate(ordered)) else ordered


def is_huggingface(config: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` describes a V-JEPA 2 of transformers."""
    return config.get("model_type") == MODEL_TYPE


def write_huggingface(contents: Contents, folder: Path) -> list[str]:
    """Write a folder that `transformers.AutoModel.from_pretrained` opens; return what it cannot express.

    Raises:
        CheckpointError: If it cannot express the networks at all; nothing is written.
    """
    _refuse(contents)
    main: NetworkName = "encoder" if "encoder" in contents.tensors else "context_encoder"
    prefix = BACKBONE if "probe" in contents.tensors else ""
    tensors: dict[str, Tensor] = {}
    for name in (main, "predictor", "probe"):
        for key, value in contents.tensors.get(name, {}).items():
            start = "" if name == "probe" else prefix
            tensors |= {start + theirs: rows for theirs, rows in their_rows(kind_of(name), key, value)}
    if "predictor" in contents.tensors:
        predictor = contents.tensors["predictor"]
        count = count_modules(predictor, "mask_tokens")
        tensors[prefix + STACKED] = torch.stack([predictor[f"mask_tokens.{i}"] for i in range(count)])
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(tensors, folder / WEIGHTS)
    if main == "encoder" and "context_encoder" in contents.tensors:
        write_tensors(contents.tensors["context_encoder"], folder / ASIDE)
    if rest := contents.rest_flat():
        write_tensors(rest, folder / REST)
    write_text(json.dumps(_config_of(contents, tensors), indent=2), folder / CONFIG)
    write_text(json.dumps(contents.config() | {"main_encoder": main}, indent=2), folder / CARD)
    return _warnings(contents)


def _refuse(contents: Contents) -> None:
    """Raise an error for networks that their model cannot express."""
    for kind, arguments in contents.arguments.items():
        for name, (values, reason) in EXPRESSIBLE.items():
            if name in arguments and arguments[name] not in values:
                raise CheckpointError(
                    f"transformers' V-JEPA 2 {reason}; the {kind} has {name}={arguments[name]!r}. "
                    "Convert to native or meta."
                )
    encoder = contents.arguments.get("encoder", {})
    height, width = height_and_width(encoder.get("img_size", 1))
    if height != width:
        raise CheckpointError(
            f"transformers' V-JEPA 2 counts tokens in a square grid; img_size is {(height, width)}. Convert to native "
            "or meta."
        )
    probe = contents.arguments.get("probe", {})
    if encoder and probe and encoder["embed_dim"] != probe["embed_dim"]:
        raise CheckpointError(
            f"the probe takes tokens of width {probe['embed_dim']}, the encoder gives {encoder['embed_dim']}. "
            "Give the encoder the probe was trained on."
        )


def _warnings(contents: Contents) -> list[str]:
    """Return the differences of the model in transformers from ours."""
    encoder, probe = contents.arguments.get("encoder"), contents.arguments.get("probe")
    found = []
    if encoder is None:
        found.append("there is no encoder: transformers would make a random one. Give --encoder.")
    if "predictor" not in contents.arguments and "encoder" in contents.arguments:
        found.append("there is no predictor: transformers would make a random one.")
    if encoder is not None:
        found.append(
            f"transformers counts tokens in the grid of crop_size={height_and_width(encoder['img_size'])[0]} for "
            "every clip: at other sizes its outputs differ."
        )
    if probe is not None:
        found.append("transformers' pooler has a layer norm epsilon of 1e-6; probes were trained with 1e-5.")
        found.append(
            "transformers' classifier reads the last layer; probes of several levels (Diving48) read four."
        )
    if encoder is not None and probe is not None and encoder["num_heads"] != probe["num_heads"]:
        found.append(
            f"transformers' pooler takes the encoder's {encoder['num_heads']} heads; the probe has "
            f"{probe['num_heads']}: its classes will differ."
        )
    if {"encoder", "context_encoder"} <= contents.tensors.keys():
        found.append(
            f"transformers has one encoder: the context encoder is in {ASIDE}, which only vjepa reads."
        )
    return found


def _config_of(contents: Contents, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    encoder, predictor = contents.arguments.get("encoder", {}), contents.arguments.get("predictor", {})
    probe = contents.arguments.get("probe", {})
    config = {key: default for key, default in (*ENCODER_KEYS.values(), *PREDICTOR_KEYS.values())} | FIXED
    if probe:
        config |= {"hidden_size": probe["embed_dim"], "num_attention_heads": probe["num_heads"]}
        labels = contents.label_names or [f"{UNNAMED}{i}" for i in range(probe["num_classes"])]
        names = {str(i): name for i, name in enumerate(labels)}
        config |= {"id2label": names, "label2id": {v: int(k) for k, v in names.items()}}
        config |= {"num_pooler_layers": probe["depth"] - 1}
    for arguments, keys in ((predictor, PREDICTOR_KEYS), (encoder, ENCODER_KEYS)):
        config |= {key: arguments[ours] for ours, (key, _) in keys.items() if ours in arguments}
    if encoder:
        config["crop_size"] = height_and_width(encoder["img_size"])[0]
    dtypes = sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})
    return config | {
        "architectures": ["VJEPA2ForVideoClassification" if probe else "VJEPA2Model"],
        "model_type": MODEL_TYPE,
        "dtype": dtypes[0] if len(dtypes) == 1 else None,
    }
