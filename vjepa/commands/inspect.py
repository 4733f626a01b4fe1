"""The verb `vjepa inspect`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vjepa.checkpoints.architecture import AmbiguousPositionsError
from vjepa.checkpoints.load import (
    check_alike,
    is_known,
    load_network,
    main_encoder,
    open_checkpoint,
    predictor_class,
    source_of,
)
from vjepa.checkpoints.opening import open_safely, read_safetensors
from vjepa.checkpoints.source import NetworkName, Source, kind_of
from vjepa.checkpoints.strict import CheckpointError, nonfinite, read_from
from vjepa.commands.checksums import verified
from vjepa.commands.report import Report
from vjepa.models import ActionPredictor, VideoEncoder
from vjepa.models.files import CONFIG

log = logging.getLogger(__name__)

FOREIGN = "not a native checkpoint: vjepa does not know its architecture"
UNKNOWN_HEADS = "unknown from the weights: give num_heads when loading"
UNKNOWN_POSITION = "unknown from the weights: give position='sincos' or position='rope' when loading"
FAMILIES = {  # by the positions of the encoder
    "rope": "V-JEPA 2",
    "rope_interpolated": "V-JEPA 2.1",
    "rope_stored": "intuitive physics",
    "sincos": "V-JEPA 1",
    "sincos_wh": "I-JEPA",
}
Figures = dict[str, Any]
Network = TypeVar("Network", bound=nn.Module)


def inspect(*, ckpt: Path, index: int = 0, verify: bool = False, out: Path | None = None) -> Report:
    """Report what a checkpoint holds, without running code in it.

    Args:
        ckpt: Folder written by vjepa fit or save_pretrained, .ckpt of a run, Meta file, transformers folder, or any
            file of tensors. With verify, also a folder of features, of a probe or of shards.
        index: Which of several probes that were trained side by side.
        verify: Read every byte and compare it with the checksums that were written; report nothing else. The exit
            code is 2 if a file is damaged.
        out: Folder for `result.json`; it is not written without it.

    Raises:
        FileNotFoundError: If the file or folder does not exist.
        CheckpointError: If it holds no tensors that can be opened safely.
    """
    path = Path(ckpt)
    if verify:
        return _verified(path)
    if path.is_file() and path.suffix == ".safetensors":
        return _foreign(path, read_safetensors(path))
    content = open_safely(path) if path.is_file() else None
    if content is not None and not is_known(content):
        return _foreign(path, content)
    source = open_checkpoint(path) if content is None else source_of(path, content, index=index)
    with read_from(path):
        return Report(title=str(path), figures=_known(source))


def _verified(path: Path) -> Report:
    found = verified(path)
    wrong = [each for each in found if each.damage is not None]
    for each in wrong:
        log.error("%s is damaged: %s", each.file, each.damage)
    rows = [{"file": str(each.file), "checksum": each.verdict} for each in found]
    checked = sum(each.is_checked for each in found)
    figures = {"files": len(found), "checked": checked, "damaged": [str(each.file) for each in wrong]}
    return Report(title=str(path), rows=rows, figures=figures, exit_code=2 if wrong else 0)


def _known(source: Source) -> Figures:
    """Return the figures of a checkpoint in a known format; every network in it is checked key by key."""
    figures: Figures = {"format": source.format, "holds": ", ".join(source.networks), **source.facts}
    if {"encoder", "context_encoder"} & set(source.networks):
        figures |= _encoders(source)
    if "predictor" in source.networks:
        figures |= _predictor(source)
    if "probe" in source.networks:
        arguments = source.arguments("probe", {})
        tensors = source.tensors("probe", arguments)
        figures |= {f"probe_{k}": v for k, v in {"num_heads": UNKNOWN_HEADS, **arguments}.items()}
        if source.label_names:
            figures["label_names"] = list(source.label_names)
        figures["probe_finite"] = not nonfinite(tensors)
        figures["probe_parameters"] = sum(v.numel() for v in tensors.values())
    return figures


def _encoders(source: Source) -> Figures:
    """Return sizes and weights of the encoder to use, and its largest difference from the trained one."""
    encoder, heads = _network(source, main_encoder(source), VideoEncoder)
    grid, config = encoder.native_grid, encoder.config
    figures = {
        "family": _family(source),
        "embed_dim": encoder.embed_dim,
        "depth": config["depth"],
        "num_heads": heads,
        "position": UNKNOWN_POSITION if "position" in _stand_in(source) else encoder.position,
        "img_size": config["img_size"],
        "patch_size": config["patch_size"],
        "num_frames": config["num_frames"],
        "tubelet_size": config["tubelet_size"],
        "grid": f"{grid.t} x {grid.h} x {grid.w}",
        "encoder_parameters": encoder.num_parameters,
        "precision": _precisions(encoder.state_dict()),
        "finite": not nonfinite(encoder.state_dict()),
    }
    if {"encoder", "context_encoder"} <= set(source.networks):
        given = _stand_in(source)
        both: tuple[NetworkName, ...] = ("encoder", "context_encoder")
        tensors = {name: source.tensors(name, source.arguments(name, given)) for name in both}
        check_alike(source.path, tensors)
        context, _ = _network(source, "context_encoder", VideoEncoder)
        figures["finite"] = figures["finite"] and not nonfinite(context.state_dict())
        figures["max_difference_context_target"] = _difference(encoder, context)
    return figures


def _predictor(source: Source) -> Figures:
    predictor, heads = _network(source, "predictor", predictor_class(source, {}))
    figures = {
        "predictor_finite": not nonfinite(predictor.state_dict()),
        "predictor_parameters": predictor.num_parameters,
        "predictor_embed_dim": predictor.embed_dim,
        "predictor_depth": predictor.config["depth"],
        "predictor_num_heads": heads,
    }
    if isinstance(predictor, ActionPredictor):
        return figures | {k: predictor.config[k] for k in ("action_dim", "state_dim", "extrinsics_dim")}
    zero = [i for i, token in enumerate(predictor.mask_tokens) if not token.any()]
    return {
        **figures,
        "mask_tokens": len(predictor.mask_tokens),
        "mask_tokens_all_zero": zero,
        "mask_tokens_note": _mask_note(zero),
    }


def _network(source: Source, name: NetworkName, model_class: type[Network]) -> tuple[Network, int | str]:
    """Load a network and return it with its heads; 1 replaces unknown heads, as sizes do not depend on them."""
    given: dict[str, Any] = _stand_in(source) if kind_of(name) == "encoder" else {}
    heads = source.arguments(name, given).get("num_heads", UNKNOWN_HEADS)
    overrides = given | ({"num_heads": 1} if heads == UNKNOWN_HEADS else {})
    return load_network(source, name, model_class, overrides, allow_nonfinite=True), heads


def _stand_in(source: Source) -> dict[str, str]:
    """Return a position for weights that may be V-JEPA 1's or 2's; sizes do not depend on it."""
    try:
        source.arguments(main_encoder(source), {})
    except AmbiguousPositionsError:
        return {"position": "rope"}
    return {}


def _family(source: Source) -> str:
    """Return the family: families differ in their positions, and 2-AC from V-JEPA 2 in its predictor."""
    if predictor_class(source, {}) is ActionPredictor:
        return "V-JEPA 2-AC"
    if _stand_in(source):
        return "V-JEPA 1 or V-JEPA 2"
    position = source.arguments(main_encoder(source), {})["position"]
    return FAMILIES.get(position, f"positions {position}")


def _mask_note(zero: list[int]) -> str:
    """Return a note on mask tokens that were never trained, so that they predict from a zero vector."""
    if not zero:
        return "all trained"
    return f"mask token {', '.join(map(str, zero))} is all zero: never trained"


def _difference(target: VideoEncoder, context: VideoEncoder) -> float:
    """Return the largest difference of a weight between two encoders; 0 if one is a copy of the other."""
    pairs = zip(target.parameters(), context.parameters(), strict=True)
    apart = [(a.detach().float() - b.detach().float()).abs().max() for a, b in pairs]
    return float(torch.stack(apart).max())  # NaN if one of them is NaN


def _precisions(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted({str(v.dtype).removeprefix("torch.") for v in tensors.values()}))


def _foreign(path: Path, content: object) -> Report:
    """Report the top-level entries of a file in an unknown format."""
    entries = content if isinstance(content, Mapping) else {"(whole file)": content}
    rows = [{"entry": str(key), "holds": _kind(value)} for key, value in entries.items()]
    tensors = _tensors_in(content)
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors. Give a folder written by vjepa fit, or a .ckpt file."
        )
    remark = FOREIGN
    if (path.parent / CONFIG).is_file():
        remark = f"one file of {path.parent}; inspect the folder to see the network"
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
    """Return all tensors in nested mappings and sequences."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for item in value.values() for t in _tensors_in(item)]
    if isinstance(value, list | tuple):
        return [t for item in value for t in _tensors_in(item)]
    return []
