"""Files that are written whole or not at all, and digests of content."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "crc32"  # key in the metadata of a safetensors file
READ_BYTES = 1 << 22


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file with a checksum of its tensors, whole or not at all."""
    from safetensors.torch import save_file  # not at the top: `vjepa --help` loads no torch

    ready = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    metadata = {"format": "pt", CHECKSUM: tensors_crc32(ready)}  # transformers reads no file without "format"
    with replacing(path) as temporary:
        save_file(ready, temporary, metadata=metadata)


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(text.encode(), path)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `path`, which replaces `path` if the block raises nothing."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.touch(exist_ok=False)  # unlike a file of `tempfile`, it has the permissions that umask leaves
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def held(folder: Path, *, shared: bool = False) -> Iterator[bool]:
    """Lock a folder for this process while the block runs; give whether that was possible.

    The folder is made if it does not exist, and removed if the block left it empty. Processes that all ask for a
    `shared` lock have it together. A killed process holds nothing. Windows has no such lock.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if sys.platform == "win32":
            yield True
            return
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        try:
            yield free
        finally:
            os.close(handle)
    finally:
        if new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def tensors_crc32(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of the names, types, shapes and bytes of tensors in RAM, in hexadecimal."""
    from torch import uint8

    found = 0
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.contiguous().flatten().view(uint8).numpy().data, found)
    return f"{found:08x}"


def file_crc32(file: BinaryIO) -> str:
    """Return the CRC-32 of an open file from its beginning to its end, in hexadecimal."""
    file.seek(0)
    found = 0
    while part := file.read(READ_BYTES):
        found = zlib.crc32(part, found)
    return f"{found:08x}"


def digest(*parts: bytes, size: int = 16) -> str:
    """Return the BLAKE2b digest of the concatenated parts in hexadecimal; `size` is in bytes."""
    state = hashlib.blake2b(digest_size=size)
    for part in parts:
        state.update(part)
    return state.hexdigest()
