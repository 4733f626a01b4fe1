"""Files that are written whole or not at all, and digests of content."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from safetensors import SafetensorError

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
    except (RuntimeError, SafetensorError) as error:
        if (number := _failed_write(str(error))) is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _failed_write(message: str) -> int | None:
    """Return the number of the system's error in a message of safetensors or torch; None if it is another error.

    torch does not say why it could not write; it is a full disk, or a quota.

    >>> _failed_write("Error while serializing: I/O error: No space left on device (os error 28)")
    28
    """
    if found := re.search(r"os error (\d+)", message):
        return int(found[1])
    return errno.ENOSPC if "PytorchStreamWriter failed" in message or "unexpected pos" in message else None


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
