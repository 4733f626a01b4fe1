"""Opening files of tensors without running anything that is in them."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vjepa.checkpoints.strict import CheckpointError, few

PICKLE = b"\x80"  # first byte of a pickle of protocol 2 or later


def open_safely(path: Path) -> Any:
    """Content of a file written by torch, opened without running anything that is in it.

    Raises:
        CheckpointError: If it is cut off, is no such file, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder. Give one of the two.")
    with path.open("rb") as file:
        start = file.read(len(PICKLE))
    if path.suffix == ".safetensors":
        raise CheckpointError(
            f"{path} is tensors alone, without what they mean. Give the folder it lies in, with its config.json."
        )
    if start != PICKLE and not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is no file of torch's, or is cut off: it begins with {start!r}. Give a .ckpt file or a folder."
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what fails is said by the error
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (
        *(RuntimeError, ValueError, EOFError, OSError, KeyError, IndexError, AttributeError, TypeError),
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(f"{path} cannot be opened safely: {_why_refused(error)}") from error


def damage(path: Path) -> str | None:
    """What is wrong with a file that torch wrote, by the checksums (CRC-32) of its parts; None if it is whole.

    torch writes the checksums and does not look at them when it reads.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        return f"it is cut off or no file of torch's ({error})"
    return f"the checksum of {part} is wrong" if part else None


def newest_whole(folder: Path, *, but: Path | None = None) -> Path | None:
    """The newest undamaged .ckpt file directly in `folder`, other than `but`; None where there is none."""
    found = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in found if path != but and damage(path) is None), None)


def check_whole(path: Path) -> None:
    """See that a checkpoint's checksums are right.

    Raises:
        CheckpointError: If not; the newest good file beside it is named.
    """
    if (wrong := damage(path)) is None:
        return
    other = newest_whole(path.parent, but=path)
    advice = f"Go on from {other}" if other else "There is no other beside it: go on from another run's"
    raise CheckpointError(f"{path} is damaged: {wrong}. {advice}.")


def _why_refused(error: Exception) -> str:
    """The reason without torch's advice to open the file unsafely."""
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"it holds {found[1]}, which is neither a tensor nor a plain value, and could run anything. "
            "Save the state_dict alone, on a machine that trusts the file"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, pickle.UnpicklingError):
        return (
            "it holds more than tensors and plain values, and could run anything. Save the state_dict alone"
        )
    return f"it is cut off or damaged ({reason}). Get it again"


def read_safetensors(path: Path, keys: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file, mapped from it and not copied; all of them, or those named by `keys`."""
    try:
        with safe_open(path, "pt") as file:
            wanted = list(file.keys()) if keys is None else list(keys)
            return {key: file.get_tensor(key) for key in wanted}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def safetensors_keys(path: Path) -> list[str]:
    """Names in a safetensors file; no tensor is read."""
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file with an object in it."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds {type(content).__name__}, not an object.")
    return content


def names_in(folder: Path) -> str:
    """The first files of a folder, for messages."""
    return few(sorted(p.name for p in folder.iterdir())) or "nothing"
