"""What `features.json` says of how features were made; other features are known by it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vjepa.data import Manifest
from vjepa.extraction.features import ClipSource
from vjepa.extraction.pooling import FeatureMaker
from vjepa.extraction.windows import Windows
from vjepa.models import VideoEncoder
from vjepa.models.files import digest

FORMAT = 1


def describe(source: ClipSource, maker: FeatureMaker) -> dict[str, Any]:
    """Clips, and what is made of them.

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
        "preprocessing": _preprocessing(source),
        "pool": maker.pool,
        "layers": list(maker.layers),
        "decoder": source.decoder,
        "grid": _grid(maker.encoder, source.windows),
    }


def describe_encoder(encoder: VideoEncoder, path: str, which: str) -> dict[str, Any]:
    """What `features.json` says of the encoder."""
    return {
        "path": path if "://" in path else str(Path(path).resolve()),
        "which": which,
        "digest": digest(encoder),
        "config": encoder.config,
    }


def _digest(manifest: Manifest) -> str:
    """A hash of what the rows are."""
    state = hashlib.blake2b(digest_size=16)
    for row in manifest.rows:
        state.update(repr((row.path, row.label, row.start, row.end)).encode())
    state.update(repr(manifest.label_names).encode())
    return state.hexdigest()


def _preprocessing(source: ClipSource) -> dict[str, Any]:
    windows, transform = source.windows, source.transform
    return {
        **{"num_frames": windows.num_frames, "fps": windows.fps},
        **{"window": windows.window, "stride": windows.stride},
        **{"size": transform.size, "short_side": transform.short_side},
        **{"mean": transform.mean, "std": transform.std},
    }


def _grid(network: VideoEncoder, windows: Windows) -> list[int]:
    """Tokens of a window in time, height and width: what pool none and frame leave of it."""
    config = network.config
    size = config["img_size"]
    height, width = (size, size) if isinstance(size, int) else size
    patch, tubelet = config["patch_size"], min(config["tubelet_size"], config["num_frames"])
    return [windows.num_frames // tubelet, height // patch, width // patch]
