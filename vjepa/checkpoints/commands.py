"""The verb `vjepa inspect`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vjepa.checkpoints.native import (
    CheckpointError,
    load_encoder,
    load_predictor,
    open_safely,
    read_config,
)
from vjepa.models import VideoEncoder
from vjepa.models.files import CONFIG
from vjepa.report import Report

FOREIGN = "not a native checkpoint: vjepa does not know its architecture"
Figures = dict[str, Any]


def inspect(*, ckpt: Path, out: Path | None = None) -> Report:
    """Tells what a checkpoint holds, without running anything that is in it.

    Args:
        ckpt: Folder written by vjepa fit or save_pretrained, a .ckpt of a run, or any file of tensors.
        out: Folder for `result.json`; nothing is written without it.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        CheckpointError: If it holds no tensors that can be opened safely.
    """
    path = Path(ckpt)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint. Give a folder written by vjepa fit, or a file.")
    if path.is_dir():
        return Report(title=str(path), figures=_folder(path))
    if path.suffix == ".safetensors":
        return _foreign(path, _safetensors(path))
    content = open_safely(path)
    if isinstance(content, Mapping) and "vjepa" in content and "state_dict" in content:
        return Report(title=str(path), figures=_run(path, content))
    return _foreign(path, content)


def _folder(path: Path) -> Figures:
    """Figures of a native folder; which networks it holds is said by its files."""
    config = read_config(path)
    contexts = (path / "context_encoder.safetensors").is_file()
    figures: Figures = {"format": f"native folder, format {config.get('format')}"}
    return figures | _networks(path, has_context=contexts, has_predictor="predictor" in config)


def _run(path: Path, content: Mapping[str, Any]) -> Figures:
    """Figures of a checkpoint that a run resumes from."""
    figures = {
        "format": "checkpoint of a vjepa run",
        "step": content.get("global_step"),
        "epoch": content.get("epoch"),
        "optimizer_state": bool(content.get("optimizer_states")),
    }
    return figures | _networks(path, has_context=True, has_predictor="predictor" in content["vjepa"])


def _networks(path: Path, *, has_context: bool, has_predictor: bool) -> Figures:
    """Sizes and weights of the networks, each loaded strictly."""
    encoder = load_encoder(path)
    grid, config = encoder.native_grid, encoder.config
    figures: Figures = {
        "embed_dim": encoder.embed_dim,
        "depth": config["depth"],
        "num_heads": encoder.num_heads,
        "position": encoder.position,
        "img_size": config["img_size"],
        "patch_size": config["patch_size"],
        "num_frames": config["num_frames"],
        "tubelet_size": config["tubelet_size"],
        "grid": f"{grid.t} x {grid.h} x {grid.w}",
        "encoder_parameters": encoder.num_parameters,
        "precision": _precisions(encoder.state_dict()),
        "finite": all(bool(v.isfinite().all()) for v in encoder.state_dict().values()),
    }
    if has_context:
        figures["max_difference_context_target"] = _difference(encoder, load_encoder(path, which="context"))
    if has_predictor:
        predictor = load_predictor(path)
        figures |= {
            "predictor_parameters": predictor.num_parameters,
            "predictor_embed_dim": predictor.embed_dim,
            "predictor_depth": predictor.config["depth"],
            "mask_tokens": len(predictor.mask_tokens),
            "mask_tokens_all_zero": [i for i, token in enumerate(predictor.mask_tokens) if not token.any()],
        }
        figures["mask_tokens_note"] = _mask_note(figures["mask_tokens_all_zero"])
    return figures


def _mask_note(zero: list[int]) -> str:
    """What to know of mask tokens that were never trained; they predict from a zero vector."""
    if not zero:
        return "all trained"
    return f"mask token {', '.join(map(str, zero))} is all zero: never trained"


def _difference(target: VideoEncoder, context: VideoEncoder) -> float:
    """Largest difference of a weight between the two encoders; 0 if one is a copy of the other."""
    pairs = zip(target.parameters(), context.parameters(), strict=True)
    return max(float((a.detach().float() - b.detach().float()).abs().max()) for a, b in pairs)


def _precisions(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted({str(v.dtype).removeprefix("torch.") for v in tensors.values()}))


def _safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, with a mention of the folder it may belong to."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def _foreign(path: Path, content: object) -> Report:
    """Top-level entries of a file that is not ours."""
    entries = content if isinstance(content, Mapping) else {"(whole file)": content}
    rows = [{"entry": str(key), "holds": _kind(value)} for key, value in entries.items()]
    tensors = _tensors_in(content)
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors. Give a folder written by vjepa fit, or a .ckpt file."
        )
    remark = FOREIGN
    if (path.parent / CONFIG).is_file():
        remark = f"one file of {path.parent}; inspect the folder for what it means"
    figures = {
        "format": remark,
        "entries": len(rows),
        "tensors": len(tensors),
        "numbers": sum(t.numel() for t in tensors),
        "precision": _precisions({str(i): t for i, t in enumerate(tensors)}),
    }
    return Report(title=str(path), rows=rows, figures=figures)


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping | list | tuple):
        return f"{type(value).__name__} of {len(value)}, {len(_tensors_in(value))} tensors"
    text = json.dumps(value, default=str)
    return text if len(text) < 60 else f"{type(value).__name__}"


def _tensors_in(value: object) -> list[Tensor]:
    """All tensors in nested mappings and sequences."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for item in value.values() for t in _tensors_in(item)]
    if isinstance(value, list | tuple):
        return [t for item in value for t in _tensors_in(item)]
    return []
