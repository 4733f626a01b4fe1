"""Readers of JSON, YAML, CSV and safetensors headers, whose errors name the file and the place in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vjepa.errors import FileError, VjepaError

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
