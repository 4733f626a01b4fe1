"""The content of `features.json`: how features were made. Features made otherwise are known by it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vjepa.data import Manifest
from vjepa.features.clip_spec import ClipSpec, spec_of_features
from vjepa.features.extract import ClipSource
from vjepa.features.pooling import FeatureMaker
from vjepa.models import VideoEncoder
from vjepa.models.files import digest

FORMAT = 2  # 1 kept the layers beside the preprocessing
MADE = ("shape", "label_names", "failures")  # what came out, not what was asked for


def describe(source: ClipSource, maker: FeatureMaker) -> dict[str, Any]:
    """Return what `features.json` says of clips, and of what is made of them.

    Args:
        source: The clips.
        maker: From clips to features.
    """
    return {
        "format_version": FORMAT,
        "data": {
            "source": source.manifest.source,
            "num_rows": len(source.manifest),
            "digest": _digest(source.manifest),
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
        "digest": digest(encoder),
        "config": encoder.config,
    }


def asked_for(about: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a `features.json` that was asked for, in today's words also of an older file.

    Args:
        about: The content of the file.
    """
    asked = {key: value for key, value in about.items() if key not in (*MADE, "layers")}
    return asked | {"format_version": FORMAT, "preprocessing": spec_of_features(about).to_json()}


def _digest(manifest: Manifest) -> str:
    """A hash of what the rows are."""
    state = hashlib.blake2b(digest_size=16)
    for row in manifest.rows:
        state.update(repr((row.path, row.label, row.start, row.end)).encode())
    state.update(repr(manifest.label_names).encode())
    return state.hexdigest()


def _grid(network: VideoEncoder, spec: ClipSpec) -> list[int]:
    """Tokens of a window in time, height and width: what pool none and frame leave of it."""
    config = network.config
    patch, tubelet = config["patch_size"], min(config["tubelet_size"], config["num_frames"])
    height, width = spec.size
    return [spec.num_frames // tubelet, height // patch, width // patch]
