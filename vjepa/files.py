"""Files that are written whole or not at all, folders that one process holds, and checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from safetensors import SafetensorError

from vjepa.names import redacted
from vjepa.readers import HEADER_BYTES

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
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Write the metadata in the header of a safetensors file in order: the library's order changes from run to run."""
    with path.open("r+b") as file:
        header = file.read(int.from_bytes(file.read(HEADER_BYTES), "little"))
        start = header.index(b'"__metadata__":{') + len(b'"__metadata__":')
        old = header[start : header.index(b"}", start) + 1]
        new = json.dumps(json.loads(old), sort_keys=True, separators=(",", ":")).encode()
        assert len(new) == len(old), f"{path}: {old!r}"
        file.seek(HEADER_BYTES + start)
        file.write(new)


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8, whole or not at all, with the credentials of URLs in it hidden.

    Bytes of names that are not UTF-8 are written as escapes, which JSON reads back.
    """
    write_bytes(redacted(text).encode("utf-8", "backslashreplace"), path)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `path`, which replaces `path` if the block raises nothing."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.touch(exist_ok=False)  # unlike a file of `tempfile`, it has the permissions that umask leaves
    permissions = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(permissions)  # safetensors puts a private file in its place
        os.replace(temporary, path)
    except (RuntimeError, SafetensorError) as error:
        if (number := _failed_write(str(error))) is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
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


def from_home(path: str | Path) -> Path:
    """Return a path in which a leading `~/` stands for the home folder, as in a shell; `~x.mp4` is a file's name."""
    return Path(path).expanduser() if str(path) == "~" or str(path).startswith("~/") else Path(path)
