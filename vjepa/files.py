"""Files that are written whole or not at all, and digests of content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vjepa.names import redacted

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file, whole or not at all."""
    from safetensors.torch import save_file  # not at the top: `vjepa --help` loads no torch

    ready = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with replacing(path) as temporary:
        save_file(ready, temporary, metadata={"format": "pt"})  # transformers reads no file without it


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
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~umask())  # mkstemp makes a private file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(*parts: bytes, size: int = 16) -> str:
    """Return the BLAKE2b digest of the concatenated parts in hexadecimal; `size` is in bytes."""
    state = hashlib.blake2b(digest_size=size)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def from_home(path: str | Path) -> Path:
    """Return a path in which a leading `~/` stands for the home folder, as in a shell; `~x.mp4` is a file's name."""
    return Path(path).expanduser() if str(path) == "~" or str(path).startswith("~/") else Path(path)


def umask() -> int:
    """Return the permission bits that new files of this process lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
