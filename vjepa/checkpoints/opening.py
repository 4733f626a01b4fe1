"""Open files of tensors without running code in them."""

from __future__ import annotations

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

from vjepa import readers
from vjepa.checkpoints.strict import CheckpointError, few
from vjepa.errors import FileError
from vjepa.files import CHECKSUM, tensors_crc32

PICKLE = b"\x80"  # first byte of a pickle of protocol 2 or later


def open_safely(path: Path) -> Any:
    """Return the content of a file written by torch, without running code in it.

    Raises:
        CheckpointError: If it is truncated, was not written by torch, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder. Give one of the two.")
    with path.open("rb") as file:
        start = file.read(len(PICKLE))
    if path.suffix == ".safetensors":
        raise CheckpointError(
            f"{path} holds tensors only, without their config. Give the folder it lies in, with its config.json."
        )
    is_zip = zipfile.is_zipfile(path)
    if start != PICKLE and not is_zip:
        raise CheckpointError(
            f"{path} was not written by torch, or is truncated: it begins with {start!r}. Give a .ckpt file or "
            "a folder."
        )
    if is_zip and (parts := _compressed(path)):
        raise CheckpointError(
            f"{path} is a compressed zip ({parts[0]}); torch writes and maps uncompressed ones. Unpack it and pack it "
            "again without compression (`zip -0 -r`), or save it again with torch.save."
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # the error says it too
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except (
        *(RuntimeError, ValueError, EOFError, OSError, KeyError, IndexError, AttributeError, TypeError),
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(f"{path} cannot be opened safely: {_why_refused(error)}") from error


def _compressed(path: Path) -> list[str]:
    """Return the names of compressed parts of a zip file: torch maps their bytes as if they were weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be opened safely: it is truncated or damaged ({error}). Copy it again."
        ) from error


def damage(path: Path) -> str | None:
    """Return how a file of tensors is damaged, by the checksums (CRC-32) in it; None if it is not.

    torch writes the checksums of its zip files but does not check them when it reads. A safetensors file has one if
    vjepa wrote it.
    """
    if path.suffix == ".safetensors":
        try:
            tensors, recorded = read_safetensors(path), _metadata(path).get(CHECKSUM)
        except CheckpointError as error:
            return str(error)
        return None if recorded in (None, tensors_crc32(tensors)) else "the checksum of its tensors is wrong"
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        return f"it is truncated or was not written by torch ({error})"
    return f"the checksum of {part} is wrong" if part else None


def newest_whole(folder: Path, *, but: Path | None = None) -> Path | None:
    """Return the newest undamaged .ckpt file directly in `folder`, other than `but`; None if there is none."""
    found = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in found if path != but and damage(path) is None), None)


def check_whole(path: Path) -> None:
    """Check the checksums of a checkpoint.

    Raises:
        CheckpointError: If one is wrong; the message names the newest undamaged file beside it.
    """
    if (wrong := damage(path)) is None:
        return
    other = newest_whole(path.parent, but=path)
    advice = f"Resume from {other}" if other else "There is no other beside it: resume from another run's"
    raise CheckpointError(f"{path} is damaged: {wrong}. {advice}.")


def _why_refused(error: Exception) -> str:
    """Return the reason without torch's advice to open the file unsafely."""
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
    return f"it is truncated or damaged ({reason}). Download or copy it again"


def read_safetensors(path: Path, keys: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or those named by `keys`; they are mapped, not copied."""
    try:
        with safe_open(path, "pt") as file:
            wanted = list(file.keys()) if keys is None else list(keys)
            return {key: file.get_tensor(key) for key in wanted}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from error


def has_checksum(path: Path) -> bool:
    """Return whether a file of tensors holds checksums: torch's zip files, and safetensors files of vjepa."""
    if path.suffix == ".safetensors":
        return CHECKSUM in _metadata(path)
    with path.open("rb") as file:
        return file.read(len(PICKLE)) != PICKLE


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from error


def safetensors_keys(path: Path) -> list[str]:
    """Return the names in a safetensors file without reading a tensor."""
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    try:
        return readers.read_json(file)
    except FileError as error:
        raise CheckpointError(str(error)) from error


def names_in(folder: Path) -> str:
    """Return the names of a folder's first files, for messages."""
    return few(sorted(p.name for p in folder.iterdir())) or "nothing"
