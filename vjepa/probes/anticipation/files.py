"""A trained anticipation probe in a folder: `probe.safetensors`, and `probe.json` with names and recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vjepa.files import write_tensors, write_text
from vjepa.probes.anticipation.probe import AnticipationProbe
from vjepa.probes.base import ProbeError

KIND = "anticipation"
WEIGHTS, CARD = "probe.safetensors", "probe.json"


def save_anticipation(folder: Path, probe: AnticipationProbe, card: dict[str, Any]) -> None:
    """Write a probe to `folder`, which is made if need be.

    Args:
        folder: Where to.
        probe: The probe.
        card: What must be known beside its weights: names of classes, encoder, predictor, recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors({k: v.cpu() for k, v in probe.state_dict().items()}, folder / WEIGHTS)
    write_text(json.dumps({"kind": KIND, "arguments": probe.config, **card}, indent=2), folder / CARD)


def is_anticipation(folder: Path) -> bool:
    """Whether a folder of `vjepa probe` holds an anticipation probe."""
    try:
        return bool(json.loads((folder / CARD).read_text(encoding="utf-8")).get("kind") == KIND)
    except (OSError, ValueError):
        return False


def load_anticipation(folder: Path) -> tuple[AnticipationProbe, dict[str, Any]]:
    """A probe written by `save_anticipation`, in eval mode, and its card.

    Raises:
        ProbeError: If it is damaged.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        with torch.device("meta"):
            probe = AnticipationProbe(**card["arguments"])
        probe.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ProbeError(f"{folder} holds a damaged probe ({error}). Train it again.") from error
    return probe.eval(), card
