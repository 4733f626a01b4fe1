"""Files that are written whole or not at all, readers of text that name file and place, and digests of content."""

from __future__ import annotations

import csv
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
from typing import TYPE_CHECKING, Any, BinaryIO

from safetensors import SafetensorError

from vjepa.errors import FileError, VjepaError
from vjepa.names import redacted

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "crc32"  # key in the metadata of a safetensors file
READ_BYTES = 1 << 22


# what Python and torch raise for content of another type or shape than the code expects
UNEXPECTED = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(ArithmeticError, RecursionError, RuntimeError, csv.Error),
)
HEADER_BYTES = 8  # a safetensors file begins with the length of its header


@contextmanager
def content_of(path: str | Path, what: str = "") -> Iterator[None]:
    """Name the file in any error of the block: a file from elsewhere may hold anything.

    Args:
        path: The file.
        what: What it should hold, for the message.

    Raises:
        FileError: In place of what Python or torch raise for an unexpected value.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except VjepaError as error:
        if str(path) in str(error):
            raise
        should = f"not {what}: " if what else ""
        raise FileError(f"{path}: {should}{error}") from error
    except UNEXPECTED as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        should = f"not {what}" if what else "unexpected content"
        raise FileError(f"{path}: {should} ({reason}). Write it again, or correct it.") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        FileError: If it is not JSON, or holds another value; it names the line and column.
    """
    content = parse_json(path.read_bytes(), path)
    if not isinstance(content, dict):
        raise FileError(
            f"{path}: holds {type(content).__name__}, not an object. Write it again, or correct it."
        )
    return content


def parse_json(text: bytes, path: str | Path, line: int = 0) -> Any:
    """Return the value that `text` is in JSON; `line` is its line in the file, if it is one of several.

    Raises:
        FileError: If it is not JSON.
    """
    where = f"{path}:{line}" if line else str(path)
    try:
        return json.loads(text.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        place = where if line else f"{path}:{error.lineno}:{error.colno}"
        raise FileError(f"{place}: not JSON ({error.msg}). Write it again, or correct it.") from error
    except RecursionError as error:
        raise FileError(f"{where}: nested too deep to be read.") from error
    except ValueError as error:
        raise FileError(f"{where}: not JSON ({_reason(error)}). Write it again, or correct it.") from error


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line and cells of each row of a CSV file with a header.

    Raises:
        FileError: If it is not CSV, lacks one of the `columns`, or a row has more or fewer cells than the header.
    """
    with csv_errors(path), path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        for column in columns:
            if column not in header:
                found = ", ".join(header) or "an empty file"
                raise FileError(
                    f"{path}:1: missing column '{column}'; found {found}. Write it again, or correct it."
                )
        for cells in reader:
            if len(cells) != len(header):
                raise FileError(
                    f"{path}:{reader.line_num}: {len(cells)} cells, the header has {len(header)}. Correct the line."
                )
            yield reader.line_num, dict(zip(header, cells, strict=True))


@contextmanager
def csv_errors(path: str | Path) -> Iterator[None]:
    """Raise `FileError` with the name of the file for a text that is not CSV, or not UTF-8."""
    try:
        yield
    except csv.Error as error:
        raise FileError(f"{path}: not CSV ({error}). Check its quotes, or write it again.") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 text ({_reason(error)}). Save it as UTF-8.") from error


def read_yaml(path: Path) -> Any:
    """Return the value in a YAML file, of plain types.

    Raises:
        FileError: If it is not YAML; it names the line.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise FileError(f"{place}: not YAML ({error.problem or error.context}). Correct the line.") from error
    except RecursionError as error:
        raise FileError(f"{path}: nested too deep to be read.") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise FileError(f"{path}: not YAML ({_reason(error)}). Correct it.") from error


def tensors_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file, and "offset", the byte at which its data begin.

    Raises:
        FileError: If the file has no such header.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_BYTES), "little")
        if length > path.stat().st_size - HEADER_BYTES:
            raise FileError(f"{path}: not a complete safetensors file. Write it again, or copy it again.")
        header = parse_json(file.read(length), path)
    if not isinstance(header, dict):
        raise FileError(
            f"{path}: the header of a safetensors file is an object, not {type(header).__name__}."
        )
    return header | {"offset": HEADER_BYTES + length}


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


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
