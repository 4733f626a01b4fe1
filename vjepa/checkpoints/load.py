"""Loading networks from any checkpoint: the format is recognised, the architecture read, the rest strict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from vjepa.checkpoints.architecture import lost_blocks
from vjepa.checkpoints.hub import download, is_hub_name
from vjepa.checkpoints.huggingface import HuggingFaceFolder, is_huggingface
from vjepa.checkpoints.meta import MetaFile, is_meta
from vjepa.checkpoints.native import NativeFolder, RunFile, native_config
from vjepa.checkpoints.opening import open_safely, read_json
from vjepa.checkpoints.source import Contents, Part, Source, kind_of
from vjepa.checkpoints.strict import CheckpointError, few, fill, key_diff, read_from
from vjepa.errors import SettingError, did_you_mean
from vjepa.models import ActionPredictor, Predictor, VideoEncoder
from vjepa.models.files import CONFIG

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)
WHICH: dict[str, Part] = {"target": "encoder", "context": "context_encoder"}


def load_encoder(
    path: str | Path,
    *,
    which: Literal["target", "context"] | None = None,
    allow_missing: Sequence[str] = (),
    **overrides: Any,
) -> VideoEncoder:
    """An encoder with its weights, in eval mode.

    Args:
        path: A folder written by `vjepa fit` or `save_pretrained`, a `.ckpt` of a run, a file of Meta's, a folder
            of transformers', or a name on the Hugging Face Hub.
        which: The moving average ("target"), or the network that was trained ("context"). By default the
            moving average, or the only encoder there is.
        allow_missing: Keys that may be missing, one by one; they keep the values of a new network.
        **overrides: Arguments of `VideoEncoder` in place of those stored or read off the weights. Weights do
            not tell `num_heads` of an unpublished width, nor the native `img_size` and `num_frames` of
            rotary positions (256 and 64, of V-JEPA 2, are assumed), nor `levels` of an unpublished depth, nor
            always the kind of gated `mlp`.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        CheckpointError: If it holds something else, or a key is missing, unknown or of another shape.
    """
    if which not in (None, *WHICH):
        raise SettingError(f"which is {which!r}. Give one of {', '.join(map(repr, WHICH))}, or None.")
    source = open_checkpoint(path)
    part = main_encoder(source) if which is None else WHICH[which]
    if which is None and part == "context_encoder":
        log.warning("%s holds the encoder that was trained and no moving average of it", path)
    return load_part(source, part, VideoEncoder, overrides, allow_missing=allow_missing)


def load_predictor(
    path: str | Path, *, allow_missing: Sequence[str] = (), **overrides: Any
) -> Predictor | ActionPredictor:
    """A predictor with its weights, in eval mode: of V-JEPA 2-AC an `ActionPredictor`, else a `Predictor`.

    Arguments and errors as in `load_encoder`, overrides those of the class. Weights do not tell the `grid_size` of
    an `ActionPredictor` (16 is assumed), nor whether V-JEPA 2.1's places are stretched to 16 a side, which they are
    here: position="rope_interleaved" takes them as they are, as the released loading code does.
    """
    source = open_checkpoint(path)
    model_class: Callable[..., Predictor | ActionPredictor] = predictor_class(source, overrides)
    return load_part(source, "predictor", model_class, overrides, allow_missing=allow_missing)


def predictor_class(source: Source, overrides: Mapping[str, Any]) -> type[Predictor] | type[ActionPredictor]:
    """The class of a checkpoint's predictor, by its arguments."""
    held = "predictor" in source.parts
    return ActionPredictor if held and "action_dim" in source.arguments("predictor", overrides) else Predictor


def read_config(path: str | Path) -> dict[str, Any]:
    """The description in a folder or `.ckpt` of ours."""
    path = Path(path)
    if path.is_dir():
        return native_config(path)
    content = open_safely(path)
    if not isinstance(content, Mapping) or "vjepa" not in content:
        raise CheckpointError(_stranger(path, content))
    return content["vjepa"]


def open_checkpoint(path: str | Path, *, index: int | None = None) -> Source:
    """A checkpoint of any format, with no weight read yet.

    Args:
        path: File, folder or name on the Hub.
        index: Which probe to take of a Meta file with several.
    """
    with read_from(path):
        return _opened(path, index)


def _opened(path: str | Path, index: int | None) -> Source:
    place = Path(path)
    if not place.exists() or not str(path):
        if not is_hub_name(str(path)):
            raise FileNotFoundError(
                f"{path}: no such checkpoint. Give a folder written by vjepa fit, a .ckpt file, a file of Meta's "
                "or a folder of transformers'."
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
    """Whether the content of a file of torch's is of a run of ours or of Meta's making."""
    return _is_run(content) or is_meta(content)


def source_of(path: Path, content: Any, *, index: int | None = None) -> Source:
    """A file of torch's that was opened already. Arguments and errors as in `open_checkpoint`."""
    with read_from(path):
        if _is_run(content):
            return RunFile(path, content)
        if not is_meta(content):
            raise CheckpointError(_stranger(path, content))
        return MetaFile(path, content, index=index)


def main_encoder(source: Source) -> Part:
    """The encoder to use: the moving average, unless only the trained one is there."""
    only_context = "encoder" not in source.parts and "context_encoder" in source.parts
    return "context_encoder" if only_context else "encoder"


def load_part(
    source: Source,
    part: Part,
    model_class: Callable[..., Network],
    overrides: Mapping[str, Any],
    *,
    allow_missing: Sequence[str] = (),
) -> Network:
    """One network of an opened checkpoint, strictly."""
    if part not in source.parts:
        raise CheckpointError(source.absent(part))
    known = signature(model_class).parameters
    for name in overrides:
        if name not in known:
            raise CheckpointError(
                f"{getattr(model_class, '__name__', 'the network')} has no argument {name!r}. "
                f"The nearest is {did_you_mean(name, known)!r}."
            )
    with read_from(source.path):
        return _filled(source, part, model_class, overrides, allow_missing)


def _filled(
    source: Source,
    part: Part,
    model_class: Callable[..., Network],
    overrides: Mapping[str, Any],
    allow_missing: Sequence[str],
) -> Network:
    arguments = source.arguments(part, overrides)
    if "num_heads" not in arguments:
        raise CheckpointError(
            f"{source.path}: weights do not tell the heads of the {kind_of(part)}, of width "
            f"{arguments['embed_dim']}, which is no published size. Give num_heads=..."
        )
    if isinstance(source, MetaFile) and kind_of(part) == "encoder" and "depth" not in overrides:
        if remark := lost_blocks(arguments):
            log.warning("%s: %s", source.path, remark)
    tensors = source.tensors(part, arguments)
    return fill(model_class, arguments, tensors, source=str(source.path), allow_missing=allow_missing)


def read_contents(source: Source, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Contents:
    """Everything in an opened checkpoint, to be written in another format.

    Args:
        source: The checkpoint.
        overrides: Constructor arguments by kind of network, where the checkpoint does not tell them.
    """
    arguments: dict[str, dict[str, Any]] = {}
    tensors: dict[Part, dict[str, Tensor]] = {}
    rest: dict[Part, dict[str, Tensor]] = {}
    with read_from(source.path):
        for part in source.parts:
            told = source.arguments(part, (overrides or {}).get(kind_of(part), {}))
            arguments[kind_of(part)] = told
            tensors[part] = source.tensors(part, told)
            if idle := source.rest(part, told):
                rest[part] = idle
    return Contents(
        arguments=arguments, tensors=tensors, rest=rest, origin=source.origin, label_names=source.label_names
    )


def check_alike(path: str | Path, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
    """See that both encoders of a checkpoint are of one build; raises `CheckpointError`."""
    if "encoder" in tensors and "context_encoder" in tensors:
        if diff := key_diff(tensors["encoder"], tensors["context_encoder"]):
            raise CheckpointError(
                f"{path}: its two encoders differ. Beside the moving average, the trained one has {diff}."
            )


def _is_run(content: object) -> bool:
    return isinstance(content, Mapping) and "vjepa" in content and "state_dict" in content


def _stranger(path: Path, content: object) -> str:
    held = few([str(key) for key in content]) if isinstance(content, Mapping) else type(content).__name__
    return (
        f"{path} is not a checkpoint of a vjepa run; it holds {held or 'nothing'}. `vjepa inspect` tells more; of "
        "Meta's files, those with an entry encoder, target_encoder, predictor or classifier are read."
    )
