"""Reports of verbs: a titled table and figures, and the `result.json` they are written to."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from vjepa.files import write_text
from vjepa.names import redacted

VERSIONED = ("vjepa-toolkit", "torch", "lightning", "av", "numpy")


@dataclass(frozen=True)
class Report:
    """Outcome of a verb: `rows` of one table, and named `figures`, the top-level keys of `result.json`.

    `closing` are the last lines shown: the result in words, where it is, and the next command. `exit_code` is 0, or 2
    if a part of the input could not be used and the rest was done.
    """

    title: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    closing: tuple[str, ...] = ()


def as_report(outcome: object) -> Report:
    """Return the outcome of a verb as a `Report`; a mapping or dataclass becomes its figures."""
    if isinstance(outcome, Report):
        return outcome
    if isinstance(outcome, Mapping):
        return Report(figures=dict(outcome))
    if is_dataclass(outcome) and not isinstance(outcome, type):
        return Report(figures=asdict(outcome))
    assert outcome is None, f"a command returned {type(outcome).__name__}: return a Report, a mapping or None"
    return Report()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    installed = {dist.metadata["Name"].lower() for dist in metadata.distributions()}
    found.update({name: metadata.version(name) for name in VERSIONED if name in installed})
    return found


def _plain(value: Any) -> Any:
    """Return `value` in JSON's own types; a number that is not finite becomes null, which every reader accepts."""
    if isinstance(value, Mapping):
        return {redacted(str(key)): _plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays and tensors, without importing their packages
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (int, float, bool, type(None))) else redacted(str(value))


def write_result(
    out: Path, *, figures: Mapping[str, Any], settings: Mapping[str, Any], seed: int | None
) -> Path:
    """Write `out/result.json`, whole or not at all, and return its path."""
    content = {**figures, "settings": settings, "versions": versions(), "seed": seed}
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "result.json"
    write_text(text + "\n", path)
    return path
