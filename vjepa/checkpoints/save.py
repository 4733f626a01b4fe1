"""Write networks in memory as a Meta file or a transformers folder."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from vjepa.checkpoints.huggingface import write_huggingface
from vjepa.checkpoints.meta import write_meta
from vjepa.checkpoints.source import contents_of
from vjepa.errors import SettingError

log = logging.getLogger(__name__)


def save_meta(
    path: str | Path,
    *,
    encoder: nn.Module | None = None,
    context_encoder: nn.Module | None = None,
    predictor: nn.Module | None = None,
    probe: nn.Module | None = None,
) -> Path:
    """Write a file that the code of V-JEPA 1 and 2 opens, and return its path.

    Args:
        path: The file to write.
        encoder: The moving average; becomes `target_encoder`.
        context_encoder: The encoder that was trained; becomes `encoder`.
        predictor: Its predictor.
        probe: An attentive probe; becomes `classifiers`, or `classifier` at depth 1.
    """
    if not any((encoder, context_encoder, predictor, probe)):
        raise SettingError("no network to write. Give encoder, context_encoder, predictor or probe.")
    if Path(path).is_dir():
        raise SettingError(f"{path} is a folder. Give the name of a file.")
    contents = contents_of(
        {"encoder": encoder, "context_encoder": context_encoder, "predictor": predictor, "probe": probe}
    )
    write_meta(contents, Path(path))
    return Path(path)


def save_huggingface(
    folder: str | Path,
    encoder: nn.Module | None = None,
    *,
    predictor: nn.Module | None = None,
    probe: nn.Module | None = None,
) -> Path:
    """Write a folder that `transformers.AutoModel.from_pretrained` opens, and return it.

    A warning is logged for each thing that transformers cannot express.

    Args:
        folder: The folder; it is made if it is missing.
        encoder: The encoder, with tiled rotary positions.
        predictor: Its predictor.
        probe: An attentive probe; makes the model a VJEPA2ForVideoClassification.

    Raises:
        CheckpointError: If the model of transformers cannot express the network at all.
    """
    contents = contents_of({"encoder": encoder, "predictor": predictor, "probe": probe})
    for warning in write_huggingface(contents, Path(folder)):
        log.warning(warning)
    return Path(folder)
