"""The verb `vjepa convert`: a checkpoint in another format, with proof that it computes the same."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vjepa.checkpoints.huggingface import write_huggingface
from vjepa.checkpoints.load import check_alike, load_part, open_checkpoint, predictor_class, read_contents
from vjepa.checkpoints.meta import write_meta
from vjepa.checkpoints.native import write_native
from vjepa.checkpoints.source import Contents, Part, Source, kind_of
from vjepa.checkpoints.strict import CheckpointError, few
from vjepa.commands.report import Report
from vjepa.layers.block import MlpKind
from vjepa.models import ActionPredictor, Predictor, VideoEncoder
from vjepa.models.encoder import Position
from vjepa.probes import AnticipationProbe, AttentiveProbe
from vjepa.probes.released import probe_class
from vjepa.types import TokenGrid

log = logging.getLogger(__name__)

# what the weights in a file of Meta's do not tell of every network
NOT_IN_META = ("num_heads", "depth", "position", "img_size", "num_frames", "levels", "mlp", "grid_size")
# what another alignment in memory may change, over the largest output
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
PARITY_TUBELETS, PARITY_PATCHES = (
    2,
    4,
)  # extent of the clip that both are given: enough for every weight to act


def convert(
    *,
    src: str,
    dst: Path,
    to: Literal["native", "meta", "hf"],
    encoder: str | None = None,
    index: int | None = None,
    num_heads: int | None = None,
    predictor_num_heads: int | None = None,
    probe_num_heads: int | None = None,
    position: Position | None = None,
    mlp: MlpKind | None = None,
    levels: list[int] | None = None,
    grid_size: int | None = None,
    img_size: int | None = None,
    num_frames: int | None = None,
    out: Path | None = None,
) -> Report:
    """Write a checkpoint in another format and compare what both compute.

    Args:
        src: Native folder, .ckpt of a run, file of Meta's, folder of transformers', or name on the Hub.
        dst: What to write: a file for meta, a folder else. It must not exist, or be an empty folder.
        to: The format.
        encoder: Of a probe: checkpoint of the encoder it was trained on, to be written beside it.
        index: Which of several probes that were trained side by side.
        num_heads: Attention heads of the encoder, where its width is no published one.
        predictor_num_heads: The same of the predictor.
        probe_num_heads: The same of the probe.
        position: Positions of encoder and predictor, where the weights do not tell.
        mlp: Kind of their MLPs, where a gated width fits two.
        levels: Blocks of a V-JEPA 2.1 encoder that have a norm of their own, where its depth is no published one.
        grid_size: Tokens a side of the clips of a V-JEPA 2-AC predictor, if not 16.
        img_size: Pixels a side of the native clip, where the weights do not tell.
        num_frames: Frames of the native clip, where the weights do not tell.
        out: Folder for `result.json`; nothing is written there without it.

    Raises:
        CheckpointError: If src cannot be read strictly, dst is taken, or the format cannot hold it.
    """
    with written_to(dst):
        _check_place(dst, to)
    told = {"position": position, "mlp": mlp}
    clip = {"img_size": img_size, "num_frames": num_frames}
    overrides = {
        "encoder": _given({**told, **clip, "levels": levels, "num_heads": num_heads}),
        "predictor": _given({**told, "grid_size": grid_size, "num_heads": predictor_num_heads}),
        "probe": _given({"num_heads": probe_num_heads}),
    }
    sources = [
        open_checkpoint(src, index=index),
        *([open_checkpoint(encoder)] if encoder is not None else []),
    ]
    contents = _joined(sources, overrides)
    originals = _networks(sources, overrides)
    check_alike(src, contents.tensors)
    warnings, differences = _written(contents, originals, dst, to)
    strange = [part for part, value in differences.items() if math.isnan(value)]
    warnings += [
        f"the {part}'s outputs are not finite, nor are its weights, before and after." for part in strange
    ]
    for warning in warnings:
        log.warning(warning)
    left_out = [name for source in sources for name in source.facts.get("left_out", [])]
    rows = [{"output": name, "max_abs_difference": value} for name, value in differences.items()]
    return Report(
        title=f"{src} -> {dst} ({to})",
        rows=rows,
        figures={
            "from": "; ".join(source.format for source in sources),
            "to": to,
            "tensors": sum(map(len, contents.tensors.values())) + len(contents.rest_flat()),
            "max_abs_difference": math.nan if strange else max(differences.values()),
            "left_out": left_out,
            "warnings": warnings,
        },
    )


def _written(
    contents: Contents, originals: Mapping[Part, nn.Module], dst: Path, to: str
) -> tuple[list[str], dict[str, float]]:
    """Write and read again: what the format cannot express, and how far the outputs are apart."""
    with written_to(dst), _whole_or_nothing(dst) as place:
        warnings = _write(contents, place, to)
        untold = {
            kind: {k: v for k, v in arguments.items() if to == "meta" and k in NOT_IN_META}
            for kind, arguments in contents.arguments.items()
        }
        differences = _parity(originals, _networks([open_checkpoint(place)], untold))
    return warnings, differences


def _check_place(dst: Path, to: str) -> None:
    """See that nothing is where the result is to be."""
    if to == "meta" and dst.is_dir() and not any(dst.iterdir()):
        raise CheckpointError(f"{dst} is a folder; --to meta writes one file. Give the name of a file.")
    if os.path.lexists(dst) and (dst.is_symlink() or not dst.is_dir() or any(dst.iterdir())):
        raise CheckpointError(f"{dst} is there already. Give another place, or remove it.")


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _joined(sources: list[Source], overrides: Mapping[str, Mapping[str, Any]]) -> Contents:
    """What all sources hold; a probe and its encoder come in two."""
    first, *others = [read_contents(source, overrides) for source in sources]
    for other in others:
        if twice := first.tensors.keys() & other.tensors.keys():
            raise CheckpointError(f"both checkpoints hold the {sorted(twice)[0]}. Drop --encoder.")
        first = replace(
            first,
            arguments=first.arguments | other.arguments,
            tensors=first.tensors | other.tensors,
            rest=first.rest | other.rest,
            origin=first.origin | other.origin,
            label_names=first.label_names or other.label_names,
        )
    return first


def _networks(sources: list[Source], overrides: Mapping[str, Mapping[str, Any]]) -> dict[Part, nn.Module]:
    """All networks, each loaded strictly."""
    networks: dict[Part, nn.Module] = {}
    for source in sources:
        classes: dict[str, Callable[..., nn.Module]] = {
            "encoder": VideoEncoder,
            "predictor": predictor_class(source, overrides.get("predictor", {})),
            "probe": probe_class(source, overrides.get("probe", {})),
        }
        for part in source.parts:
            kind = kind_of(part)
            networks[part] = load_part(source, part, classes[kind], overrides.get(kind, {}))
    return networks


def _write(contents: Contents, place: Path, to: str) -> list[str]:
    if to == "hf":
        return write_huggingface(contents, place)
    if to == "meta":
        write_meta(contents, place)
    else:
        write_native(contents, place)
    return []


@contextmanager
def written_to(dst: Path) -> Iterator[None]:
    """Name the place where nothing can be written."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{dst} cannot be written ({error.strerror}). Give another place.") from error


@contextmanager
def _whole_or_nothing(dst: Path) -> Iterator[Path]:
    """A place to write to, which becomes `dst` if nothing was raised; else not a folder is left of it."""
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


@torch.no_grad()
def _parity(ours: Mapping[Part, nn.Module], theirs: Mapping[Part, nn.Module]) -> dict[str, float]:
    """Largest difference of each network's outputs for the same random input; NaN where both give the same NaNs.

    Raises:
        CheckpointError: If a weight has not kept its bits, or the outputs differ by more than rounding.
    """
    assert ours.keys() == theirs.keys(), (ours.keys(), theirs.keys())
    differences: dict[str, float] = {}
    for part, network in ours.items():
        there = theirs[part].state_dict()
        changed = [k for k, v in network.state_dict().items() if not _same_bits(v, there[k])]
        before, after = _outputs(network), _outputs(theirs[part])
        differences[part] = difference = float((before.double() - after.double()).abs().max())
        allowed = ROUNDING[before.dtype] * float(before.abs().max())
        if changed or before.isfinite().all() and not difference <= allowed:
            raise CheckpointError(
                f"the {part} does not come out as it went in: {few(changed) or 'no weight'} changed, outputs differ by "
                f"{difference:g}. Nothing was written; please report it."
            )
    return differences


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(_bits(a), _bits(b))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _outputs(network: nn.Module) -> Tensor:
    """What a network makes of a random input, the same for every network of its kind."""
    generator = torch.Generator().manual_seed(0)
    dtype = next(network.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    if isinstance(network, VideoEncoder):
        patch = network.config["patch_size"] * PARITY_PATCHES
        tubelet, frames = network.config["tubelet_size"], network.config["num_frames"]
        return network(draw(1, 3, min(frames, PARITY_TUBELETS * tubelet), patch, patch))
    grid = TokenGrid(t=PARITY_TUBELETS, h=PARITY_PATCHES, w=PARITY_PATCHES)
    if isinstance(network, Predictor):
        if network.position == "sincos_wh":  # of images
            grid = TokenGrid(t=1, h=PARITY_PATCHES, w=PARITY_PATCHES)
        ids = torch.arange(len(grid))[None]
        half = len(grid) // 2
        context = draw(1, half, max(network.num_levels, 1) * network.encoder_dim)
        seen, hidden = ids[:, :half], ids[:, half:]
        return torch.stack(
            [
                torch.cat(network.forward_dense(context, seen, hidden, grid=grid, mask_token=i))
                if network.num_levels
                else network(context, seen, hidden, grid=grid, mask_token=i)
                for i in range(len(network.mask_tokens))
            ]
        )
    if isinstance(network, ActionPredictor):
        given = [draw(1, grid.t, network.config[f"{name}_dim"]) for name in ("action", "state", "extrinsics")]
        return network(draw(1, len(grid), network.encoder_dim), *given, grid=grid)
    assert isinstance(network, AttentiveProbe | AnticipationProbe)
    found = network(draw(1, PARITY_TUBELETS * PARITY_PATCHES**2, network.config["embed_dim"]))
    return torch.cat(astuple(found), dim=1) if isinstance(network, AnticipationProbe) else found
