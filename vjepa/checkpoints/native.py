"""Our own files: a folder to use (safetensors and a config), and the checkpoint a run resumes from.

A folder holds `encoder.safetensors` (the target encoder, the one to use), `context_encoder.safetensors` (the
one that was trained), `predictor.safetensors` and `config.json`. Loading is strict: it is all or an error.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vjepa.models import Predictor, VideoEncoder
from vjepa.models.files import CONFIG

PICKLE = b"\x80"  # first byte of a pickle of protocol 2 or later
FILES = {"target": "encoder", "context": "context_encoder"}  # which -> name of its file
CKPT_PREFIX = {
    "target": "objective.target_encoder.",
    "context": "objective.context_encoder.",
    "predictor": "objective.predictor.",
}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, and why; nothing was loaded."""


def load_encoder(
    path: str | Path, *, which: Literal["target", "context"] = "target", **overrides: Any
) -> VideoEncoder:
    """An encoder with its weights, in eval mode.

    Args:
        path: A folder written by `vjepa fit` or `save_pretrained`, or a `.ckpt` of a run.
        which: The moving average ("target"), or the network that was trained ("context").
        **overrides: Arguments of `VideoEncoder` to use in place of the stored ones.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        CheckpointError: If it holds something else, or a key is missing, unknown or of another shape.
    """
    config, tensors = _read(Path(path), which)
    return _filled(VideoEncoder, {**config["encoder"], **overrides}, tensors, path)


def load_predictor(path: str | Path, **overrides: Any) -> Predictor:
    """A predictor with its weights, in eval mode. Arguments and errors as in `load_encoder`."""
    config, tensors = _read(Path(path), "predictor")
    if "predictor" not in config:
        raise CheckpointError(f"{path} holds an encoder alone, no predictor.")
    return _filled(Predictor, {**config["predictor"], **overrides}, tensors, path)


def read_config(path: str | Path) -> dict[str, Any]:
    """The description in a folder or `.ckpt` of ours."""
    path = Path(path)
    return _ckpt(path)["vjepa"] if path.is_file() else _folder_config(path)


def key_diff(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The keys that do not fit, a line a kind; empty if all do.

    >>> key_diff({"norm.bias": torch.zeros(2)}, {"norm.bias": torch.zeros(3), "extra": torch.zeros(1)})
    'not expected: extra; other shape: norm.bias is (3,), expected (2,)'
    """
    shapes = [
        f"{k} is {tuple(found[k].shape)}, expected {tuple(expected[k].shape)}"
        for k in expected
        if k in found and found[k].shape != expected[k].shape
    ]
    kinds = {
        "missing": [k for k in expected if k not in found],
        "not expected": [k for k in found if k not in expected],
        "other shape": shapes,
    }
    return "; ".join(f"{kind}: {_few(keys)}" for kind, keys in kinds.items() if keys)


def _few(keys: list[str], most: int = 4) -> str:
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest


def _filled(
    model_class: type[VideoEncoder] | type[Predictor],
    config: dict[str, Any],
    tensors: dict[str, Tensor],
    path: str | Path,
) -> Any:
    """A model built from its config and filled, strictly."""
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}  # JSON knows no tuples
    try:
        with torch.device("meta"):
            model: nn.Module = model_class(**config)
    except TypeError as error:
        raise CheckpointError(f"{path}: its config does not fit {model_class.__name__}: {error}") from error
    if diff := key_diff(model.state_dict(), tensors):
        raise CheckpointError(f"{path} does not fit its {model_class.__name__}: {diff}.")
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _read(path: Path, part: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such checkpoint. Give a folder written by vjepa fit, or a .ckpt file."
        )
    if path.is_file():
        checkpoint = _ckpt(path)
        prefix = CKPT_PREFIX[part]
        state = checkpoint["state_dict"]
        return checkpoint["vjepa"], {
            k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)
        }
    config = _folder_config(path)
    file = path / f"{FILES.get(part, part)}.safetensors"
    if not file.is_file():
        raise CheckpointError(
            f"{path} has no {file.name}; it holds {_few(sorted(p.name for p in path.iterdir()))}."
        )
    try:
        return config, load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a whole safetensors file: {error}") from error


def _folder_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}: not a folder written by vjepa.")
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict) or "encoder" not in config:
        raise CheckpointError(f"{file} does not describe an encoder.")
    return config


def open_safely(path: Path) -> Any:
    """Content of a file written by torch, opened without running anything that is in it.

    Raises:
        CheckpointError: If it is cut off, is no such file, or holds more than tensors and plain values.
    """
    with path.open("rb") as file:
        start = file.read(len(PICKLE))
    if start != PICKLE and not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is no file of torch's, or is cut off: it begins with {start!r}. Give a .ckpt file or a folder."
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what fails is said by the error
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (
        *(RuntimeError, ValueError, EOFError, OSError, KeyError, IndexError, AttributeError, TypeError),
        pickle.UnpicklingError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a checkpoint that can be opened safely: {reason}") from error


def _ckpt(path: Path) -> dict[str, Any]:
    """A `.ckpt` of ours."""
    checkpoint = open_safely(path)
    if not isinstance(checkpoint, dict) or "vjepa" not in checkpoint:
        raise CheckpointError(
            f"{path} is not a checkpoint of a vjepa run. `vjepa inspect` tells what it holds."
        )
    return checkpoint
