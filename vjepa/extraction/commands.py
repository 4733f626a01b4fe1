"""The verb `vjepa extract`."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from vjepa.extraction.about import describe, describe_encoder
from vjepa.extraction.features import ClipSource, extract_features
from vjepa.extraction.pooling import (
    DType,
    FeatureMaker,
    Pool,
    Precision,
    load_pooler,
)
from vjepa.extraction.windows import Windows
from vjepa.extraction.writers import WRITERS, Format, check_format, merge

from vjepa.checkpoints import load_encoder
from vjepa.commands.report import Report
from vjepa.data import Manifest, read_manifest
from vjepa.extraction.errors import ExtractionError
from vjepa.extraction.parts import Parts, settings_of, unit_rows
from vjepa.extraction.preprocessing import eval_transform
from vjepa.extraction.search import SEARCH, check_searchable, write_search
from vjepa.features import ABOUT, INDEX, file_of
from vjepa.files import write_text

log = logging.getLogger(__name__)

PARTS, PLAN, LOCK = "parts", "plan.json", ".lock"
MADE = ("shape", "label_names", "failures")  # of `features.json`: what came out, not what was asked for


def extract(
    *,
    encoder: str,
    data: str,
    out: Path,
    pool: Pool = "mean",
    layers: str = "-1",
    probe: Path | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
    window: float | None = None,
    stride: float | None = None,
    format: Format = "safetensors",
    dtype: DType = "fp32",
    index: bool | Literal["faiss"] = False,
    batch_size: int = 16,
    num_workers: int = 0,
    which: Literal["target", "context"] = "target",
    precision: Precision = "fp32",
    label: str = "label",
    decoder: str = "auto",
    rank: int | None = None,
    world_size: int | None = None,
    overwrite: bool = False,
) -> Report:
    """Write frozen features of videos: of the clip in the middle of each, or of windows from start to end.

    What was stopped at any moment goes on with the same command, to the same files. Videos that cannot be read, or
    not to their end, are one line each and listed in features.json; the exit code is then 2, and 0 if all was read.

    Args:
        encoder: Folder written by vjepa fit or save_pretrained, or a .ckpt file.
        data: A manifest, a folder of videos, one video, or shards.
        out: Folder for features.safetensors (or .npy, .parquet), index.csv, features.json and result.json.
        pool: mean over a clip's tokens, over each tubelet's (frame), a trained probe's (attentive), none: all tokens.
        layers: Blocks whose tokens are taken, such as -4,-1; of several, features get an axis for them in front.
        probe: Folder of a trained attentive probe, for pool attentive.
        num_frames: Frames of a clip (default: the encoder's).
        fps: Frames of a clip a second of video (default: every frame; of a window, num_frames).
        window: Seconds of a window; without, one clip from the middle of each video.
        stride: Seconds from one window to the next (default: window).
        format: What file features go to.
        dtype: What features are kept in.
        index: Also write what vjepa search needs; faiss: and a graph, for an approximate search.
        batch_size: Clips of one forward.
        num_workers: Processes that decode; 0 decodes in the main one.
        which: Which encoder of a run: its moving average (target), or the one that was trained (context).
        precision: bf16 runs the encoder in autocast.
        label: Column of the manifest that holds the label.
        decoder: auto, pyav, torchcodec, decord, frames, or the class path of a decoder of your own.
        rank: Which of world_size processes this is (default: what torchrun says, else 0).
        world_size: How many processes share the work, at once or one after the other (default: as rank, else 1).
        overwrite: Delete features in out that were made otherwise.
    """
    began = time.monotonic()
    ranks = _ranks(rank, world_size)
    _check_counts(batch_size, num_workers)
    check_format(format, dtype)
    network = load_encoder(encoder, which=which).to(_device())
    native = network.config["num_frames"]
    cut = Windows.of(native_frames=native, num_frames=num_frames, fps=fps, window=window, stride=stride)
    maker = FeatureMaker(
        network,
        layers=_layers(layers),
        pool=pool,
        precision=precision,
        dtype=dtype,
        pooler=load_pooler(probe, network) if probe is not None else None,
    )
    manifest = read_manifest(data, label_column=label)
    source = ClipSource(manifest, cut, eval_transform(network), decoder, num_workers)
    about = describe(source, maker) | {"precision": precision, "dtype": dtype, "format": format}
    about |= {"batch_size": batch_size, "probe": str(probe.resolve()) if probe else None}
    about |= {"encoder": describe_encoder(network, encoder, which)}
    if index:
        check_searchable(maker, graph=index == "faiss")
    made, done = _carry_out(out, source, maker, about, ranks=ranks, overwrite=overwrite)
    if index and done is not None:
        write_search(out, graph=index == "faiss")
    return _report(done, made, time.monotonic() - began)


def _carry_out(
    out: Path,
    source: ClipSource,
    maker: FeatureMaker,
    about: dict[str, Any],
    *,
    ranks: tuple[int, int],
    overwrite: bool,
) -> tuple[int, dict[str, Any] | None]:
    """How many windows were made, and `features.json` if all are."""
    manifest, batch_size = source.manifest, about["batch_size"]
    out.mkdir(parents=True, exist_ok=True)
    rows = unit_rows(len(manifest), batch_size=batch_size, one_clip=source.windows.is_one)
    parts = Parts(out / PARTS, num_rows=len(manifest), rows=rows)
    with _locked(out):
        done = _prepare(out, about, overwrite=overwrite)
    if done is not None:
        return 0, done
    rank, world_size = ranks
    made = extract_features(maker, source, parts, batch_size=batch_size, rank=rank, world_size=world_size)
    return made, _merged(out, parts, manifest, about)


def _merged(out: Path, parts: Parts, manifest: Manifest, about: dict[str, Any]) -> dict[str, Any] | None:
    """`features.json`, if this was the last rank to end or another one has written it; None if some are at work."""
    with _locked(out):
        if (there := settings_of(out / ABOUT)) is not None:
            return there
        if not parts.is_done():
            log.info("the other ranks are not done yet: the last one puts the features together")
            return None
        try:
            return merge(out, parts, manifest, about)
        except ExtractionError:
            _clear(out)
            raise


def _prepare(out: Path, about: dict[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """`features.json` if all was done before; else a folder for the parts of these features, and no others."""
    about = json.loads(json.dumps(about))
    there = settings_of(out / ABOUT) or settings_of(out / PARTS / PLAN)
    if there is not None:
        before = {key: value for key, value in there.items() if key not in MADE}
        if differing := sorted(key for key in about if before.get(key) != about[key]):
            if not overwrite:
                raise ExtractionError(
                    f"{out} holds features made with another {' and '.join(differing)}. Give another --out, or "
                    "--overwrite true to delete them."
                )
            _clear(out)
            out.mkdir(exist_ok=True)
    if (out / ABOUT).exists():
        shutil.rmtree(out / PARTS, ignore_errors=True)  # a kill came after the last file and before this
        return settings_of(out / ABOUT)
    (out / PARTS).mkdir(exist_ok=True)
    write_text(json.dumps(about), out / PARTS / PLAN)
    return None


def _clear(out: Path) -> None:
    """Delete features, whole or in parts, and the folder if nothing else is in it."""
    (out / ABOUT).unlink(missing_ok=True)  # first: without it the rest counts for nothing
    for name in (INDEX, SEARCH, LOCK, *(file_of(kind) for kind in WRITERS)):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    if not any(out.iterdir()):
        out.rmdir()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Only one of several ranks at a time; a killed one holds nothing. Windows has no such lock."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (out / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_counts(batch_size: int, num_workers: int) -> None:
    if batch_size < 1 or num_workers < 0:
        raise ExtractionError(
            f"got batch_size {batch_size}, num_workers {num_workers}: give 1 and 0, or more."
        )


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """This process among all of them, as given or as torchrun says."""
    if (rank is None) != (world_size is None):
        raise ExtractionError(f"got rank {rank}, world_size {world_size}: give both or none of them.")
    if rank is None or world_size is None:
        torchrun = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else None
        rank, world_size = (torchrun.global_rank(), torchrun.world_size()) if torchrun else (0, 1)
    if not 0 <= rank < world_size:
        raise ExtractionError(f"got rank {rank}, world_size {world_size}: ranks are 0 to world_size - 1.")
    return rank, world_size


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise ExtractionError(
            f"layers {text!r}: give numbers with commas between, such as -1 or 5,11."
        ) from error


def _report(done: dict[str, Any] | None, made: int, seconds: float) -> Report:
    figures: dict[str, Any] = {"is_complete": done is not None, "num_made": made}
    if done is not None:
        figures |= {
            "num_clips": done["shape"][0],
            "num_failures": len(done["failures"]),
            "failures": [f"{failure['path']}: {failure['reason']}" for failure in done["failures"]],
            "shape": done["shape"],
        }
    figures |= {"seconds": round(seconds, 2), "clips_per_second": round(made / seconds, 2)}
    return Report(
        title="features", figures=figures, exit_code=2 if done is not None and done["failures"] else 0
    )


def _device() -> torch.device:
    """The accelerator if there is one; of several, that which torchrun gives this process."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator()
    assert found is not None
    local = TorchElasticEnvironment().local_rank() if TorchElasticEnvironment.detect() else 0
    return torch.device(found.type, local % torch.accelerator.device_count())
