"""Files that are written whole or not at all, and digests of content."""

from __future__ import annotations

import hashlib
import os
import tempfile
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
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~umask())  # mkstemp makes a private file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def umask() -> int:
    """Return the permission bits that new files of this process lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
