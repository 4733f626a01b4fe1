"""Loading a probe from any checkpoint: trained here, Meta's, or in a folder of transformers'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vjepa.checkpoints.load import load_part, open_checkpoint
from vjepa.checkpoints.source import Source
from vjepa.checkpoints.strict import CheckpointError
from vjepa.probes import files
from vjepa.probes.anticipation.files import is_anticipation, load_anticipation
from vjepa.probes.anticipation.probe import AnticipationProbe
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe


def load_probe(
    path: str | Path, *, index: int | None = None, allow_missing: Sequence[str] = (), **overrides: Any
) -> Probe | AnticipationProbe:
    """A probe with its weights, in eval mode: tokens of its encoder (B, N, D) to logits.

    A file of EPIC-KITCHENS-100 gives an `AnticipationProbe`: tokens of `anticipate` to `ActionScores`.

    Args:
        path: A folder written by `vjepa probe`, a probe file of Meta's, or a folder with a probe in it that
            `vjepa convert` or transformers wrote.
        index: Which of several probes that were trained side by side (files of Meta's training code).
        allow_missing: Keys that may be missing, one by one; they keep the values of a new probe.
        **overrides: Arguments of the probe's class. Weights do not tell `num_heads` of an unpublished width.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        CheckpointError: If it holds no probe, or a key is missing, unknown or of another shape.
    """
    if (Path(path) / files.CARD).is_file():
        given = [
            *overrides,
            *(["allow_missing"] if allow_missing else []),
            *([] if index is None else ["index"]),
        ]
        if given:
            raise CheckpointError(
                f"{path} was written by `vjepa probe` and says all itself: drop {given[0]}."
            )
        if is_anticipation(Path(path)):
            return load_anticipation(Path(path))[0]
        return files.load_probe(Path(path))[0]
    source = open_checkpoint(path, index=index)
    model_class: Callable[..., Probe | AnticipationProbe] = probe_class(source, overrides)
    return load_part(source, "probe", model_class, overrides, allow_missing=allow_missing)


def probe_class(
    source: Source, overrides: Mapping[str, Any]
) -> type[AttentiveProbe] | type[AnticipationProbe]:
    """The class of a checkpoint's probe, by its arguments."""
    held = "probe" in source.parts
    return (
        AnticipationProbe if held and "num_verbs" in source.arguments("probe", overrides) else AttentiveProbe
    )
