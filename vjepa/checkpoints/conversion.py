"""Conversion of a checkpoint to another format, with proof that the networks stay the same."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from vjepa.checkpoints.huggingface import write_huggingface
from vjepa.checkpoints.load import check_alike, load_network, open_checkpoint, predictor_class, read_contents
from vjepa.checkpoints.meta import write_meta
from vjepa.checkpoints.native import write_native
from vjepa.checkpoints.parity import compare
from vjepa.checkpoints.source import Contents, NetworkName, Source, kind_of
from vjepa.checkpoints.strict import CheckpointError
from vjepa.models import VideoEncoder

Format = Literal["native", "meta", "hf"]
Overrides = Mapping[str, Mapping[str, Any]]  # constructor arguments by kind of network
ProbeClass = Callable[[Source, Mapping[str, Any]], Callable[..., nn.Module]]
# what the weights in a file of Meta do not say about every network
NOT_IN_META = ("num_heads", "depth", "position", "img_size", "num_frames", "levels", "mlp", "grid_size")


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        differences: Largest difference of each network's outputs before and after; NaN if they are not finite.
        left_out: Entries of the sources that were not written, such as the state of the optimiser.
        warnings: What the new format means to others, where that differs from the old.
    """

    formats: tuple[str, ...]
    num_tensors: int
    differences: dict[str, float]
    left_out: list[str]
    warnings: list[str]


def convert_checkpoint(
    src: str,
    dst: Path,
    to: Format,
    *,
    probe_class: ProbeClass,
    encoder: str | None = None,
    index: int | None = None,
    overrides: Overrides,
    allow_nonfinite: bool = False,
) -> Conversion:
    """Write a checkpoint in another format and compare the networks in both.

    Args:
        src: The checkpoint, in any format.
        dst: Path to write: a file for "meta", else a folder. It must not exist, or be an empty folder.
        to: The format.
        probe_class: Returns the class of a checkpoint's probe, from the checkpoint and `overrides["probe"]`.
        encoder: For a probe: checkpoint of its encoder, to be written beside it.
        index: Which of several probes that were trained side by side.
        overrides: Arguments of the networks that the weights do not determine.
        allow_nonfinite: Convert weights that hold NaN or infinite numbers too.

    Raises:
        CheckpointError: If `src` cannot be read strictly, `dst` exists, the format cannot express a network, or a
            weight is not finite.
    """
    with _writing_to(dst):
        _check_free(dst, to)
    sources = [open_checkpoint(src, index=index)]
    sources += [open_checkpoint(encoder)] if encoder is not None else []
    contents = _joined(sources, overrides)
    before = _networks(sources, overrides, probe_class, allow_nonfinite)
    check_alike(src, contents.tensors)
    with _writing_to(dst), _replacing(dst) as place:
        warnings = _write(contents, place, to)
        missing = {
            kind: {k: v for k, v in arguments.items() if to == "meta" and k in NOT_IN_META}
            for kind, arguments in contents.arguments.items()
        }
        differences = compare(
            before, _networks([open_checkpoint(place)], missing, probe_class, allow_nonfinite)
        )
    warnings += [
        f"the {name}'s outputs are not finite, nor are its weights, before and after."
        for name, difference in differences.items()
        if math.isnan(difference)
    ]
    return Conversion(
        formats=tuple(source.format for source in sources),
        num_tensors=sum(map(len, contents.tensors.values())) + len(contents.rest_flat()),
        differences=differences,
        left_out=[name for source in sources for name in source.facts.get("left_out", [])],
        warnings=warnings,
    )


def _check_free(dst: Path, to: Format) -> None:
    """Check that nothing exists where the result is to be written."""
    if to == "meta" and dst.is_dir() and not any(dst.iterdir()):
        raise CheckpointError(f"{dst} is a folder; --to meta writes one file. Give the name of a file.")
    if os.path.lexists(dst) and (dst.is_symlink() or not dst.is_dir() or any(dst.iterdir())):
        raise CheckpointError(f"{dst} exists already. Give another path, or remove it.")


def _joined(sources: list[Source], overrides: Overrides) -> Contents:
    """Join the contents of a probe's checkpoint and of its encoder's."""
    first, *others = [read_contents(source, overrides) for source in sources]
    for other in others:
        if twice := first.tensors.keys() & other.tensors.keys():
            raise CheckpointError(f"both checkpoints hold the {sorted(twice)[0]}. Drop --encoder.")
        first = replace(
            first,
            arguments=first.arguments | other.arguments,
            tensors=first.tensors | other.tensors,
            rest=first.rest | other.rest,
            origin={**first.origin, **other.origin},
            label_names=first.label_names or other.label_names,
            card={**other.card, **first.card},
        )
    return first


def _networks(
    sources: list[Source], overrides: Overrides, probe_class: ProbeClass, allow_nonfinite: bool
) -> dict[NetworkName, nn.Module]:
    """Load all networks, each strictly."""
    networks: dict[NetworkName, nn.Module] = {}
    for source in sources:
        classes: dict[str, Callable[..., nn.Module]] = {
            "encoder": VideoEncoder,
            "predictor": predictor_class(source, overrides.get("predictor", {})),
            "probe": probe_class(source, overrides.get("probe", {})),
        }
        for name in source.networks:
            kind = kind_of(name)
            networks[name] = load_network(
                source, name, classes[kind], overrides.get(kind, {}), allow_nonfinite=allow_nonfinite
            )
    return networks


def _write(contents: Contents, place: Path, to: Format) -> list[str]:
    if to != "native" and "class_path" in contents.arguments.get("probe", {}):
        raise CheckpointError(
            f"this probe standardises its tokens first, which --to {to} cannot express. Convert to native, or use it "
            "where it is."
        )
    if to == "hf":
        return write_huggingface(contents, place)
    if to == "meta":
        write_meta(contents, place)
    else:
        write_native(contents, place)
    return []


@contextmanager
def _writing_to(dst: Path) -> Iterator[None]:
    """Name `dst` in the error if it cannot be written."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{dst} cannot be written ({error.strerror}). Give another path.") from error


@contextmanager
def _replacing(dst: Path) -> Iterator[Path]:
    """Give a path to write to that becomes `dst` if the block raises nothing; otherwise remove all of it."""
    made = [folder for folder in (dst.parent, *dst.parent.parents) if not folder.exists()]
    done = False
    try:
        dst.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=dst.parent, prefix=".converting.") as scratch:
            place = Path(scratch) / (dst.name or "converted")
            yield place
            os.replace(place, dst)
        done = True
    finally:
        for folder in made if not done else []:
            if folder.is_dir():
                folder.rmdir()
