"""Reads manifest files, a block of rows at a time: CSV, JSONL, Parquet, and Meta's `path label` lists."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from vjepa.data.manifests.rows import ManifestError

PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})
HEADERLESS = re.compile(r"(?P<path>.+?)(?:::|[ \t]+)(?P<label>-?\d+)")
ROWS_AT_ONCE = 32_768  # bounds what is in memory as Python strings


class Block(NamedTuple):
    """Some rows as written: text by column, and the line of each row."""

    cells: Mapping[str, Sequence[str]]
    lines: Sequence[int]


@dataclass(frozen=True)
class Table:
    """What a source says, as text: `columns` names all it has, `blocks` yields the columns that were wanted.

    `columns` of a JSONL file are known only when its blocks have been read. `is_file`: paths in it are relative
    to a folder that the user may name.
    """

    kind: str
    columns: list[str]
    blocks: Iterable[Block]
    is_file: bool = True

    @classmethod
    def listed(cls, kind: str, cells: Mapping[str, Sequence[str]]) -> Table:
        """Of what a folder holds; there are no lines."""
        return cls(kind, list(cells), [Block(cells, [0] * len(cells["path"]))], is_file=False)


def text_table(source: Path, wanted: frozenset[str]) -> Table:
    """Table of a CSV, JSONL or headerless file; which of them, its first line says.

    Args:
        source: The file.
        wanted: Columns to read.

    Raises:
        ManifestError: Naming file and line; some of them only when the blocks are read.
    """
    first = next(_lines(source), "").strip()
    if source.suffix.lower() in (".jsonl", ".ndjson") or first.startswith("{"):
        columns: list[str] = []
        return Table("jsonl", columns, _blocks(source, partial(_jsonl_blocks, columns=columns), wanted))
    header = [name.strip() for name in next(csv.reader([first]), [])]
    if "path" in header:
        if twice := [name for name in header if header.count(name) > 1]:
            raise ManifestError(source, 1, f"two columns are named {twice[0]!r}. Rename one of them")
        return Table("csv", header, _blocks(source, _csv_blocks, wanted))
    if HEADERLESS.fullmatch(first):
        return Table("path-label list", ["path", "label"], _blocks(source, _headerless_blocks, wanted))
    if not first:
        raise ManifestError(source, 0, "the manifest is empty. Begin it with the header `path,label`")
    raise ManifestError(
        source,
        1,
        f"missing column 'path'; found {', '.join(header)}. Begin the file with a header such as "
        "`path,label`, with commas between",
    )


def _csv_blocks(source: Path, file: TextIO, wanted: frozenset[str]) -> Iterator[Block]:
    reader = csv.reader(file)
    header = [name.strip() for name in next(cells for cells in reader if any(map(str.strip, cells)))]
    width, path_at = len(header), header.index("path")
    flat: list[
        str
    ] = []  # not a list of rows: so many lists would keep the garbage collector busy for seconds
    lines: list[int] = []
    for cells in reader:
        if len(cells) != width or not cells[path_at].strip():
            if not any(map(str.strip, cells)):
                continue
            if len(cells) != width:
                raise ManifestError(
                    source,
                    reader.line_num,
                    f"{len(cells)} cells, the header has {width} ({', '.join(header)}). "
                    "Put quotes around a value that holds a comma",
                )
        flat.extend(cells)
        lines.append(reader.line_num)
        if len(lines) == ROWS_AT_ONCE:
            yield _csv_block(header, flat, lines, wanted)
            flat, lines = [], []
    if lines:
        yield _csv_block(header, flat, lines, wanted)


def _csv_block(header: list[str], flat: list[str], lines: list[int], wanted: frozenset[str]) -> Block:
    columns = ((name, flat[i :: len(header)]) for i, name in enumerate(header) if name in wanted)
    return Block({name: list(map(str.strip, column)) for name, column in columns}, lines)


def _jsonl_blocks(
    source: Path, file: TextIO, wanted: frozenset[str], *, columns: list[str]
) -> Iterator[Block]:
    names = sorted(wanted)
    flat: list[Any] = []
    lines: list[int] = []
    for line, text in enumerate(file, start=1):
        if text.isspace():
            continue
        found = _json_object(source, line, text)
        if not found.keys() <= set(columns):
            columns += [name for name in found if name not in columns]
        flat.extend(map(found.get, names))
        lines.append(line)
        if len(lines) == ROWS_AT_ONCE:
            yield _jsonl_block(names, flat, lines, columns)
            flat, lines = [], []
    if lines:
        yield _jsonl_block(names, flat, lines, columns)


def _jsonl_block(names: list[str], flat: list[Any], lines: list[int], columns: list[str]) -> Block:
    cells = ((name, flat[i :: len(names)]) for i, name in enumerate(names) if name in columns)
    return Block({name: list(map(as_text, column)) for name, column in cells}, lines)


def _json_object(source: Path, line: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as e:
        raise ManifestError(source, line, f"not JSON ({e.msg}). Write one object a line") from e
    if not isinstance(found, dict) or "path" not in found:
        raise ManifestError(
            source, line, 'missing "path". Write one object a line: {"path": "a.mp4", "label": 3}'
        )
    return found


def _headerless_blocks(source: Path, file: TextIO, wanted: frozenset[str]) -> Iterator[Block]:
    rows = ((line, text.strip()) for line, text in enumerate(file, 1) if text.strip())
    while block := list(islice(rows, ROWS_AT_ONCE)):
        paths, labels = [], []
        for line, text in block:
            match = HEADERLESS.fullmatch(text)
            if match is None:
                raise ManifestError(
                    source, line, f"{text!r} is not `path label`. Put an integer after the path"
                )
            paths.append(match["path"])
            labels.append(match["label"])
        yield Block({"path": paths, "label": labels}, [line for line, _ in block])


def _lines(source: Path) -> Iterator[str]:
    """The lines that hold something."""
    with _utf8(source), source.open(newline="", encoding="utf-8-sig") as file:
        yield from (line for line in file if line.strip())


def _blocks(
    source: Path, read: Callable[[Path, TextIO, frozenset[str]], Iterator[Block]], wanted: frozenset[str]
) -> Iterator[Block]:
    with _utf8(source), source.open(newline="", encoding="utf-8-sig") as file:
        yield from read(source, file, wanted)


@contextmanager
def _utf8(source: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as e:
        raise ManifestError(
            source, 0, f"neither UTF-8 text nor a known video ({e.reason}). Save a manifest as UTF-8"
        ) from e


def parquet_table(source: Path, wanted: frozenset[str]) -> Table:
    """Table of a Parquet file; its "lines" are rows, counted from 1.

    Args:
        source: The file.
        wanted: Columns to read.

    Raises:
        ManifestError: Pyarrow is missing, the file is none of Parquet's, or there is no column `path`.
    """
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as e:
        raise ManifestError(
            source, 0, 'reading Parquet needs pyarrow: pip install "vjepa-toolkit[shards]", or save it as CSV'
        ) from e
    try:
        columns = list(ParquetFile(source).schema_arrow.names)
    except ArrowInvalid as e:
        raise ManifestError(source, 0, f"not a Parquet file ({e}). Write it anew, or save it as CSV") from e
    if "path" not in columns:
        raise ManifestError(source, 0, f"missing column 'path'; found {', '.join(columns)}. Add it")
    return Table("parquet", columns, _parquet_blocks(source, [c for c in columns if c in wanted]))


def _parquet_blocks(source: Path, columns: list[str]) -> Iterator[Block]:
    from pyarrow.parquet import ParquetFile

    line = 1
    with ParquetFile(source) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
            cells = {name: list(map(as_text, batch.column(name).to_pylist())) for name in columns}
            yield Block(cells, range(line, line + batch.num_rows))
            line += batch.num_rows


def as_text(value: object) -> str:
    """A value of JSON or Parquet as a CSV file would hold it; a missing one is empty.

    >>> as_text(3.0), as_text(None), as_text(0.5)
    ('3', '', '0.5')
    """
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:  # NaN is how pandas writes a missing number
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
