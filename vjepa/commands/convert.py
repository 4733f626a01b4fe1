"""The verb `vjepa convert`."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa.checkpoints.conversion import Format, convert_checkpoint
from vjepa.commands.flags import Flat
from vjepa.commands.report import Report
from vjepa.layers import MlpKind
from vjepa.models.positions import Position
from vjepa.probes.released import class_in

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Constructor arguments that the weights do not determine.

    Args:
        num_heads: Attention heads of the encoder, if its width is not a published one.
        predictor_num_heads: The same for the predictor.
        probe_num_heads: The same for the probe.
        position: Positions of encoder and predictor, if the weights fit several.
        mlp: Kind of their MLPs, if a gated width fits two.
        levels: Blocks of a V-JEPA 2.1 encoder that have their own norm, if its depth is not a published one.
        grid_size: Tokens per side of the clips of a V-JEPA 2-AC predictor, if not 16.
        img_size: Pixels per side of the native clip, if the weights do not determine it.
        num_frames: Frames of the native clip, if the weights do not determine them.
    """

    num_heads: int | None = None
    predictor_num_heads: int | None = None
    probe_num_heads: int | None = None
    position: Position | None = None
    mlp: MlpKind | None = None
    levels: list[int] | None = None
    grid_size: int | None = None
    img_size: int | None = None
    num_frames: int | None = None

    def by_kind(self) -> dict[str, dict[str, Any]]:
        """Return the arguments that were given, by kind of network."""
        shared = {"position": self.position, "mlp": self.mlp}
        clip = {"img_size": self.img_size, "num_frames": self.num_frames}
        arguments: dict[str, dict[str, Any]] = {
            "encoder": {**shared, **clip, "levels": self.levels, "num_heads": self.num_heads},
            "predictor": {**shared, "grid_size": self.grid_size, "num_heads": self.predictor_num_heads},
            "probe": {"num_heads": self.probe_num_heads},
        }
        return {
            kind: {key: value for key, value in values.items() if value is not None}
            for kind, values in arguments.items()
        }


NO_OVERRIDES = Overrides()


def convert(
    *,
    src: str,
    dst: Path,
    to: Format,
    encoder: str | None = None,
    index: int | None = None,
    overrides: Flat[Overrides] = NO_OVERRIDES,
    allow_nonfinite: bool = False,
    out: Path | None = None,
) -> Report:
    """Write a checkpoint in another format and compare the outputs of both.

    Args:
        src: Native folder, .ckpt of a run, Meta file, transformers folder, or name on the Hub.
        dst: Path to write: a file for meta, else a folder. It must not exist, or be an empty folder.
        to: The format.
        encoder: For a probe: checkpoint of the encoder it was trained on, to be written beside it.
        index: Which of several probes that were trained side by side.
        overrides: Arguments that the weights do not determine.
        allow_nonfinite: Convert weights that hold NaN or infinite numbers too.
        out: Folder for `result.json`; it is not written without it.

    Raises:
        CheckpointError: If src cannot be read strictly, dst exists, the format cannot express a network, or a
            weight is not finite.
    """
    done = convert_checkpoint(
        src,
        dst,
        to,
        encoder=encoder,
        index=index,
        overrides=overrides.by_kind(),
        probe_class=class_in,
        allow_nonfinite=allow_nonfinite,
    )
    for warning in done.warnings:
        log.warning(warning)
    differences = done.differences.values()
    return Report(
        title=f"{src} -> {dst} ({to})",
        rows=[{"output": name, "max_abs_difference": value} for name, value in done.differences.items()],
        figures={
            "from": "; ".join(done.formats),
            "to": to,
            "tensors": done.num_tensors,
            "max_abs_difference": math.nan if any(map(math.isnan, differences)) else max(differences),
            "left_out": done.left_out,
            "warnings": done.warnings,
        },
    )
