"""A probe from any checkpoint: trained here, Meta's, or in a folder of transformers'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vjepa.checkpoints.load import load_network, open_checkpoint
from vjepa.checkpoints.source import Source
from vjepa.checkpoints.strict import CheckpointError
from vjepa.probes.anticipation.probe import AnticipationProbe
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.files import AnyProbe, build_probe, holds_probe, open_probe


def load_probe(
    path: str | Path,
    *,
    index: int | None = None,
    allow_missing: Sequence[str] = (),
    allow_nonfinite: bool = False,
    probe_class: str | None = None,
    **overrides: Any,
) -> AnyProbe:
    """Load a probe with its weights, in eval mode: it maps tokens of its encoder (B, N, D) to logits.

    A file of EPIC-KITCHENS-100 gives an `AnticipationProbe`: it maps tokens of `anticipate` to `ActionScores`.

    Args:
        path: A folder written by `vjepa probe`, a probe file of Meta's, or a folder with a probe in it that
            `vjepa convert` or transformers wrote.
        index: Which of several probes that were trained side by side (files of Meta's training code).
        allow_missing: Keys that may be missing, one by one; they keep the values of a new probe.
        allow_nonfinite: Accept weights that hold NaN or infinite numbers.
        probe_class: Class path of your own probe class, if the folder names one: no file decides what is imported.
        **overrides: Arguments of the probe's class. Weights do not tell `num_heads` of an unpublished width.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        CheckpointError: If it holds no probe, a key is missing, unknown or of another shape, or a weight is not finite.
    """
    if holds_probe(Path(path)):
        given = [
            *overrides,
            *(["allow_missing"] if allow_missing else []),
            *([] if index is None else ["index"]),
        ]
        if given:
            raise CheckpointError(
                f"{path} was written by `vjepa probe` and describes itself: drop {given[0]}."
            )
        return open_probe(Path(path), probe_class=probe_class, allow_nonfinite=allow_nonfinite)[0]
    source = open_checkpoint(path, index=index)
    return load_network(
        source,
        "probe",
        class_in(source, overrides),
        overrides,
        allow_missing=allow_missing,
        allow_nonfinite=allow_nonfinite,
    )


def class_in(source: Source, overrides: Mapping[str, Any]) -> Callable[..., AnyProbe]:
    """Return what builds a checkpoint's probe from its arguments."""
    arguments = source.arguments("probe", overrides) if "probe" in source.networks else {}
    if "class_path" in arguments:
        return partial(build_probe, None)
    return AnticipationProbe if "num_verbs" in arguments else AttentiveProbe
