"""Load networks from a checkpoint of any format: find the format, read the architecture, load strictly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from vjepa.checkpoints.architecture import lost_blocks
from vjepa.checkpoints.hub import download, is_hub_name, nearest_folder
from vjepa.checkpoints.huggingface import HuggingFaceFolder, is_huggingface
from vjepa.checkpoints.meta import MetaFile, is_meta
from vjepa.checkpoints.native import NativeFolder, RunFile, native_config
from vjepa.checkpoints.opening import open_safely, read_json
from vjepa.checkpoints.source import Contents, NetworkName, Source, kind_of
from vjepa.checkpoints.strict import CheckpointError, few, fill, key_diff, read_from
from vjepa.errors import SettingError, did_you_mean
from vjepa.models import ActionPredictor, Predictor, VideoEncoder
from vjepa.models.files import CLIPS, CONFIG

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)
WHICH: dict[str, NetworkName] = {"target": "encoder", "context": "context_encoder"}


def load_encoder(
    path: str | Path,
    *,
    which: Literal["target", "context"] | None = None,
    allow_missing: Sequence[str] = (),
    allow_nonfinite: bool = False,
    **overrides: Any,
) -> VideoEncoder:
    """Load an encoder in eval mode.

    Args:
        path: A folder written by `vjepa fit` or `save_pretrained`, a `.ckpt` of a run, a Meta file, a transformers
            folder, or a name on the Hugging Face Hub.
        which: The moving average ("target"), or the network that was trained ("context"). By default the moving
            average, or the only encoder in the checkpoint.
        allow_missing: Keys that are missing; they keep the values of a new network.
        allow_nonfinite: Accept weights that hold NaN or infinite numbers.
        **overrides: Arguments of `VideoEncoder` in place of those stored or read from the weights. Weights do not
            determine `num_heads` of an unpublished width, `levels` of an unpublished depth, the native `img_size` and
            `num_frames` of rotary positions (256 and 64 of V-JEPA 2 are assumed), and not always a gated `mlp`.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        CheckpointError: If it holds something else, a key is missing, unknown or of another shape, or a weight is not
            finite.
    """
    if which not in (None, *WHICH):
        raise SettingError(f"which is {which!r}. Give one of {', '.join(map(repr, WHICH))}, or None.")
    source = open_checkpoint(path)
    name = main_encoder(source) if which is None else WHICH[which]
    if which is None and name == "context_encoder":
        log.warning("%s holds the encoder that was trained, but no moving average of it", path)
    return load_network(
        source,
        name,
        VideoEncoder,
        overrides,
        allow_missing=allow_missing,
        allow_nonfinite=allow_nonfinite,
    )


def load_predictor(
    path: str | Path,
    *,
    allow_missing: Sequence[str] = (),
    allow_nonfinite: bool = False,
    **overrides: Any,
) -> Predictor | ActionPredictor:
    """Load a predictor in eval mode: an `ActionPredictor` for V-JEPA 2-AC, else a `Predictor`.

    Arguments and errors are as in `load_encoder`; overrides are arguments of the class. Weights do not determine the
    `grid_size` of an `ActionPredictor` (16 is assumed). Positions of V-JEPA 2.1 are stretched to 16 per side;
    position="rope_interleaved" does not stretch them, like the released loading code.
    """
    source = open_checkpoint(path)
    model_class: Callable[..., Predictor | ActionPredictor] = predictor_class(source, overrides)
    return load_network(
        source,
        "predictor",
        model_class,
        overrides,
        allow_missing=allow_missing,
        allow_nonfinite=allow_nonfinite,
    )


def predictor_class(source: Source, overrides: Mapping[str, Any]) -> type[Predictor] | type[ActionPredictor]:
    """Return the class of a checkpoint's predictor, by its arguments."""
    held = "predictor" in source.networks
    return ActionPredictor if held and "action_dim" in source.arguments("predictor", overrides) else Predictor


def open_checkpoint(path: str | Path, *, index: int | None = None) -> Source:
    """Open a file, folder or name on the Hub without reading a weight; `index` chooses one of several probes."""
    with read_from(path):
        return _opened(path, index)


def _opened(path: str | Path, index: int | None) -> Source:
    place = Path(path)
    if not place.exists() or not str(path):
        if not is_hub_name(str(path)):
            near = nearest_folder(str(path)) if str(path) and not place.is_absolute() else None
            meant = f" Did you mean {near}?" if near is not None and near.exists() else ""
            raise FileNotFoundError(
                f"{path}: no such checkpoint.{meant} Give a folder written by vjepa fit, a .ckpt file, a Meta file or "
                "a transformers folder."
            )
        place = download(str(path))
    if place.is_dir():
        config = read_json(place / CONFIG) if (place / CONFIG).is_file() else {}
        if is_huggingface(config):
            return HuggingFaceFolder(place, config)
        return NativeFolder(place, native_config(place))
    if not place.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder. Give one of the two.")
    return source_of(place, open_safely(place), index=index)


def is_known(content: object) -> bool:
    """Return whether the content of a torch file is the `.ckpt` of a run or a Meta file."""
    return _is_run(content) or is_meta(content)


def source_of(path: Path, content: Any, *, index: int | None = None) -> Source:
    """Return the checkpoint in a torch file that is already open; see `open_checkpoint`."""
    with read_from(path):
        if _is_run(content):
            return RunFile(path, content)
        if not is_meta(content):
            held = few(list(map(str, content))) if isinstance(content, Mapping) else type(content).__name__
            raise CheckpointError(
                f"{path} is not a checkpoint of a vjepa run; it holds {held or 'nothing'}. `vjepa inspect` shows more; "
                "a Meta file must have an entry encoder, target_encoder, predictor or classifier."
            )
        return MetaFile(path, content, index=index)


def main_encoder(source: Source) -> NetworkName:
    """Return the encoder to use: the moving average, unless there is only the trained encoder."""
    only_context = "encoder" not in source.networks and "context_encoder" in source.networks
    return "context_encoder" if only_context else "encoder"


def load_network(
    source: Source,
    name: NetworkName,
    model_class: Callable[..., Network],
    overrides: Mapping[str, Any],
    *,
    allow_missing: Sequence[str] = (),
    allow_nonfinite: bool = False,
) -> Network:
    """Load one network of an open checkpoint, strictly."""
    if name not in source.networks:
        raise CheckpointError(source.absent(name))
    known = signature(model_class).parameters
    for key in overrides:
        if key not in known:
            raise CheckpointError(
                f"{getattr(model_class, '__name__', 'the network')} has no argument {key!r}. "
                f"The nearest is {did_you_mean(key, known)!r}."
            )
    with read_from(source.path):
        arguments = source.arguments(name, overrides)
        if "num_heads" not in arguments and "class_path" not in arguments:
            flag = "num_heads" if kind_of(name) == "encoder" else f"{kind_of(name)}_num_heads"
            raise CheckpointError(
                f"{source.path}: weights do not determine the heads of the {kind_of(name)}, of width "
                f"{arguments['embed_dim']}, which is not a published size. Give num_heads=... (--{flag} of "
                "vjepa convert)."
            )
        if isinstance(source, MetaFile) and kind_of(name) == "encoder" and "depth" not in overrides:
            if remark := lost_blocks(arguments):
                log.warning("%s: %s", source.path, remark)
        if kind_of(name) == "encoder":
            arguments |= _whole_parts(arguments, source.path)
        tensors = source.tensors(name, arguments)
        network = fill(
            model_class,
            arguments,
            tensors,
            source=str(source.path),
            allow_missing=allow_missing,
            allow_nonfinite=allow_nonfinite,
        )
    if isinstance(network, VideoEncoder):
        network.trained_clips = source.card.get(CLIPS)
    return network


def _whole_parts(arguments: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a native clip without pixels and frames that no token covers: encoders of before could have some."""
    found: dict[str, Any] = {}
    for name, part in (("img_size", "patch_size"), ("num_frames", "tubelet_size")):
        length, step = arguments.get(name), arguments.get(part)
        sides: list[Any] = list(length) if isinstance(length, list | tuple) else [length]
        if type(step) is not int or step < 1 or any(type(side) is not int for side in sides):
            continue  # refused by the constructor
        whole = [side - side % step if side > step else side for side in sides]
        if whole != sides:
            found[name] = whole if isinstance(length, list | tuple) else whole[0]
            log.warning("%s: %s %s is taken as %s, a multiple of %s", path, name, length, found[name], part)
    return found


def read_contents(source: Source, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Contents:
    """Read everything in an open checkpoint, to write it in another format; overrides are by kind of network."""
    arguments: dict[str, dict[str, Any]] = {}
    tensors: dict[NetworkName, dict[str, Tensor]] = {}
    rest: dict[NetworkName, dict[str, Tensor]] = {}
    with read_from(source.path):
        for name in source.networks:
            kind = kind_of(name)
            arguments[kind] = source.arguments(name, (overrides or {}).get(kind, {}))
            tensors[name] = source.tensors(name, arguments[kind])
            if idle := source.rest(name, arguments[kind]):
                rest[name] = idle
    return Contents(
        arguments=arguments,
        tensors=tensors,
        rest=rest,
        origin=source.origin,
        label_names=source.label_names,
        card=source.card,
    )


def check_alike(path: str | Path, tensors: Mapping[NetworkName, Mapping[str, Tensor]]) -> None:
    """Raise `CheckpointError` if the two encoders of a checkpoint have different keys or shapes."""
    if "encoder" in tensors and "context_encoder" in tensors:
        if diff := key_diff(tensors["encoder"], tensors["context_encoder"]):
            raise CheckpointError(
                f"{path}: its two encoders differ. Beside the moving average, the trained one has {diff}."
            )


def _is_run(content: object) -> bool:
    return isinstance(content, Mapping) and "vjepa" in content and "state_dict" in content
