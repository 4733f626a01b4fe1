"""Networks in folders: a safetensors file of weights each, and a config that says how to build them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

from torch import nn

from vjepa.errors import SettingError
from vjepa.files import write_tensors, write_text

FORMAT = 1
CONFIG = "config.json"
CLIPS = "trained_clips"  # entry of a config: a `vjepa.features.ClipSpec` as JSON


def network_configs(encoder: nn.Module, predictor: nn.Module | None = None) -> dict[str, Any]:
    """Return what a checkpoint stores about its networks: the arguments of their constructors, and the run's clips."""
    networks = {"encoder": encoder, "predictor": predictor}
    arguments = {k: dict(cast("dict", v.config)) for k, v in networks.items() if v is not None}
    clips = getattr(encoder, "trained_clips", None)
    return {"format": FORMAT, **arguments, **({} if clips is None else {CLIPS: clips})}


def weights_digest(network: nn.Module) -> str:
    """Return a hash of all weights of a network."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        state.update(name.encode())
        state.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return state.hexdigest()


def save_folder(
    folder: str | Path,
    encoder: nn.Module,
    *,
    context_encoder: nn.Module | None = None,
    predictor: nn.Module | None = None,
) -> Path:
    """Write networks to a folder that `load_encoder` and `load_predictor` open; it is made if it is missing.

    `encoder` is the one to use (of a pre-training run, the target encoder), `context_encoder` the one trained.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    networks = {"encoder": encoder, "context_encoder": context_encoder, "predictor": predictor}
    for name, network in networks.items():
        if network is not None:
            write_tensors(network.state_dict(), folder / f"{name}.safetensors")
    write_text(json.dumps(network_configs(encoder, predictor), indent=2), folder / CONFIG)
    return folder


def save_alone(folder: str | Path, encoder: nn.Module) -> Path:
    """Write one encoder to a folder that holds no other network.

    Raises:
        SettingError: If it holds other networks.
    """
    own = ("encoder.safetensors", CONFIG)
    others = sorted(p.name for p in Path(folder).glob("*.safetensors*") if p.name not in own)
    if others:
        raise SettingError(
            f"{folder} holds {', '.join(others)}, which would be taken for this encoder's. Give another folder."
        )
    return save_folder(folder, encoder)
