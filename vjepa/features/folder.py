"""A folder of features while it is made: what is asked for of it, who works on it, and when it is complete."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa import files
from vjepa.data import Manifest
from vjepa.data.manifests.identity import content_state, is_same_content
from vjepa.features.clip_spec import ClipSpec, spec_of_features
from vjepa.features.errors import FeaturesError
from vjepa.features.extract import ClipSource, extract_features
from vjepa.features.pooling import FeatureMaker
from vjepa.features.reader import ABOUT, INDEX, STORED, file_of
from vjepa.features.search import SEARCH
from vjepa.features.store import ALONE, Ranks
from vjepa.features.units import Units, unit_rows
from vjepa.features.writers import WRITERS, Format, merge
from vjepa.models import VideoEncoder
from vjepa.models.files import weights_digest
from vjepa.names import redacted
from vjepa.readers import read_json

log = logging.getLogger(__name__)

PARTS, PLAN, LOCK = "parts", "plan.json", ".lock"
FORMAT = 2  # 1 kept the layers beside the preprocessing
MADE = ("shape", "label_names", "failures", "num_padded", files.CHECKSUM)  # results, not requests


@dataclass(frozen=True)
class Extraction:
    """What became of an extraction: windows that this process made, and `features.json` if all are there."""

    num_made: int
    about: dict[str, Any] | None


def extract_to(
    out: Path,
    source: ClipSource,
    maker: FeatureMaker,
    *,
    format: Format = "safetensors",
    batch_size: int = 16,
    ranks: Ranks = ALONE,
    more: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Extraction:
    """Write the features of all clips to a folder; work that was stopped at any moment continues, to the same files.

    `more` is what else `features.json` says; `overwrite` deletes features that were made otherwise.

    Raises:
        FeaturesError: If it holds features made otherwise, or no clip can be read.
    """
    dtype = next(name for name, stored in STORED.items() if stored == maker.dtype)
    asked = {"dtype": dtype, "format": format, "batch_size": batch_size}
    about = describe(source, maker) | asked | (more or {})
    num_rows = len(source.manifest)
    rows = unit_rows(num_rows, batch_size=batch_size, one_clip=source.spec.windows is None)
    units = Units(out / PARTS, num_rows=num_rows, rows=rows)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        done = _prepare(out, about, overwrite=overwrite)
    if done is not None:
        return Extraction(0, done)
    made = extract_features(maker, source, units, batch_size=batch_size, ranks=ranks)
    with _locked(out):
        return Extraction(made, _merged(out, units, source, about))


def _merged(out: Path, units: Units, source: ClipSource, about: dict[str, Any]) -> dict[str, Any] | None:
    """Return `features.json` if this is the last rank to end, or another has written it; None if some are running."""
    if (there := _content(out / ABOUT)) is not None:
        return there
    if not units.are_done():
        log.info("the other ranks are not done yet: the last one combines the features")
        return None
    try:
        return merge(out, units, source.manifest, about)
    except FeaturesError:
        _clear(out)
        raise


def _prepare(out: Path, about: dict[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """Return `features.json` if all was done before; else make a folder for the units of these features alone."""
    about = json.loads(redacted(json.dumps(about)))  # as the folder holds it
    there = _content(out / ABOUT) or _content(out / PARTS / PLAN)
    if there is not None:
        before = asked_for(there)
        now = about | {"data": _rows_alone(about["data"])}
        differing = sorted(key for key in now if before.get(key) != now[key])
        if not is_same_content(there["data"].get("content", {}), about["data"]["content"]):
            differing.append("content of the videos, which were replaced or changed since,")
        if differing:
            if not overwrite:
                raise FeaturesError(
                    f"{out} holds features made with another {' and '.join(differing)}. Give another --out, or "
                    "--overwrite true to delete them."
                )
            _clear(out)
            out.mkdir(exist_ok=True)
    if (out / ABOUT).exists():
        shutil.rmtree(out / PARTS, ignore_errors=True)  # a kill came after the last file and before this
        return _content(out / ABOUT)
    (out / PARTS).mkdir(exist_ok=True)
    files.write_text(json.dumps(about), out / PARTS / PLAN)
    return None


def _clear(out: Path) -> None:
    """Delete features, complete or not, and the folder if nothing else is in it."""
    (out / ABOUT).unlink(missing_ok=True)  # first: without it the rest counts for nothing
    for name in (INDEX, SEARCH, LOCK, *(file_of(kind) for kind in WRITERS)):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    if not any(out.iterdir()):
        out.rmdir()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Admit one of several ranks at a time; a killed one holds nothing. Windows has no such lock."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (out / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _content(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file; None if there is no file."""
    return read_json(path) if path.exists() else None


def describe(source: ClipSource, maker: FeatureMaker) -> dict[str, Any]:
    """Return what `features.json` says of clips, and of what is made of them."""
    return {
        "format_version": FORMAT,
        "data": {
            "source": source.manifest.source,
            "num_rows": len(source.manifest),
            "digest": _digest(source.manifest),
            "content": content_state((row.path for row in source.manifest.rows), thorough=source.thorough),
        },
        "preprocessing": source.spec.to_json(),
        "pool": maker.pool,
        "precision": maker.precision,
        "decoder": source.decoder,
        "grid": _grid(maker.encoder, source.spec),
    }


def describe_encoder(encoder: VideoEncoder, path: str, which: str) -> dict[str, Any]:
    """Return what `features.json` says of the encoder."""
    return {
        "path": path if "://" in path else str(Path(path).resolve()),
        "which": which,
        "digest": weights_digest(encoder),
        "config": encoder.config,
    }


def asked_for(about: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a `features.json` that was asked for, in today's words also of an older file."""
    asked = {key: value for key, value in about.items() if key not in (*MADE, "layers")}
    return asked | {
        "format_version": FORMAT,
        "preprocessing": spec_of_features(about).to_json(),
        "data": _rows_alone(about["data"]),
    }


def _rows_alone(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a `features.json` says of the rows, without the content of their videos."""
    return {key: value for key, value in data.items() if key != "content"}


def _digest(manifest: Manifest) -> str:
    """Return a hash of the rows."""
    rows = (repr((row.path, row.label, row.start, row.end)).encode() for row in manifest.rows)
    return files.digest(*rows, repr(manifest.label_names).encode())


def _grid(network: VideoEncoder, spec: ClipSpec) -> list[int]:
    """Return the tokens of a window in time, height and width, of which pool none and frame keep some."""
    config = network.config
    patch, tubelet = config["patch_size"], min(config["tubelet_size"], config["num_frames"])
    height, width = spec.size
    return [spec.num_frames // tubelet, height // patch, width // patch]
