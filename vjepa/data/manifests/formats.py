"""Readers of manifest files, in blocks of rows: CSV, JSONL, Parquet, and Meta's `path label` lists."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from vjepa.data.manifests.rows import ManifestError
from vjepa.readers import csv_errors, parse_json

PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})
HEADERLESS = re.compile(r"(?P<path>.+?)(?:::|[ \t]+)(?P<label>-?\d+)")
ROWS_AT_ONCE = 32_768  # limits how many rows are in memory as Python strings


class TextBlock(NamedTuple):
    """Some rows as written: text per column, and the line of each row."""

    cells: Mapping[str, Sequence[str]]
    lines: Sequence[int]


@dataclass(frozen=True)
class Table:
    """The content of a source as text: `columns` names all its columns, `blocks` yields the requested ones.

    `columns` of a JSONL file are complete only after its blocks have been read. `takes_root`: its paths
    may start from a folder that the user names (`root`).
    """

    kind: str
    columns: list[str]
    blocks: Iterable[TextBlock]
    takes_root: bool = True

    @classmethod
    def listed(cls, kind: str, cells: Mapping[str, Sequence[str]]) -> Table:
        """Return the table of what a folder or a set of shards holds; its rows have no lines."""
        paths = [
            f"./{path}" if path.startswith("~") else path for path in cells["path"]
        ]  # a name, not a home
        return cls(
            kind, list(cells), [TextBlock({**cells, "path": paths}, [0] * len(paths))], takes_root=False
        )


def text_table(source: Path, wanted: frozenset[str]) -> Table:
    """Return the `wanted` columns of a CSV, JSONL or headerless file; the first line tells which of them it is.

    Raises:
        ManifestError: With file and line; some are raised only when the blocks are read.
    """
    first = next(_lines(source), "").strip()
    if source.suffix.lower() in (".jsonl", ".ndjson") or first.startswith("{"):
        names, columns = sorted(wanted), list[str]()
        rows = partial(_jsonl_rows, source, names, columns)
        return Table("jsonl", columns, _blocks(source, names, rows, as_text, kept=columns))
    with csv_errors(source):
        header = [name.strip() for name in next(csv.reader([first]), [])]
    if "path" in header:
        if twice := [name for name in header if header.count(name) > 1]:
            raise ManifestError(source, 1, f"two columns are named {twice[0]!r}. Rename one of them")
        return Table(
            "csv", header, _blocks(source, header, partial(_csv_rows, source), str.strip, kept=wanted)
        )
    if HEADERLESS.fullmatch(first):
        names = ["path", "label"]
        blocks = _blocks(source, names, partial(_headerless_rows, source), str.strip, kept=names)
        return Table("path-label list", names, blocks)
    if not first:
        raise ManifestError(source, 0, "the manifest is empty. Begin it with the header `path,label`")
    raise ManifestError(
        source,
        1,
        f"missing column 'path'; found {', '.join(header)}. Begin the file with a header such as "
        "`path,label`, with commas between",
    )


def _blocks(
    source: Path,
    names: Sequence[str],
    rows: Callable[[TextIO], Iterator[tuple[int, Iterable[Any]]]],
    text_of: Callable[[Any], str],
    *,
    kept: Container[str],
) -> Iterator[TextBlock]:
    """Yield the rows of a file in blocks, with those of the columns `names` that are in `kept`."""

    def block() -> TextBlock:
        columns = ((name, flat[i :: len(names)]) for i, name in enumerate(names) if name in kept)
        return TextBlock({name: list(map(text_of, column)) for name, column in columns}, lines)

    # one list of all cells: a list per row would keep the garbage collector busy for seconds
    flat: list[Any] = []
    lines: list[int] = []
    with _utf8(source), csv_errors(source), source.open(newline="", encoding="utf-8-sig") as file:
        for line, cells in rows(file):
            flat.extend(cells)
            lines.append(line)
            if len(lines) == ROWS_AT_ONCE:
                yield block()
                flat, lines = [], []
    if lines:
        yield block()


def _csv_rows(source: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file)
    header = [name.strip() for name in next(cells for cells in reader if any(map(str.strip, cells)))]
    width, path_at = len(header), header.index("path")
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
        yield reader.line_num, cells


def _jsonl_rows(
    source: Path, names: list[str], columns: list[str], file: TextIO
) -> Iterator[tuple[int, Iterable[Any]]]:
    """Yield the values of `names` in each object; append the names that objects have to `columns`."""
    for line, text in enumerate(file, start=1):
        if text.isspace():
            continue
        found = _json_object(source, line, text)
        if not found.keys() <= set(columns):
            columns += [name for name in found if name not in columns]
        yield line, map(found.get, names)


def _json_object(source: Path, line: int, text: str) -> dict[str, Any]:
    found = parse_json(text.encode(), source, line)
    if not isinstance(found, dict) or "path" not in found:
        raise ManifestError(
            source, line, 'missing "path". Write one object per line: {"path": "a.mp4", "label": 3}'
        )
    return found


def _headerless_rows(source: Path, file: TextIO) -> Iterator[tuple[int, tuple[str, str]]]:
    for line, text in enumerate(map(str.strip, file), 1):
        if not text:
            continue
        match = HEADERLESS.fullmatch(text)
        if match is None:
            raise ManifestError(source, line, f"{text!r} is not `path label`. Put an integer after the path")
        yield line, (match["path"], match["label"])


def _lines(source: Path) -> Iterator[str]:
    """Yield the lines that are not blank."""
    with _utf8(source), source.open(newline="", encoding="utf-8-sig") as file:
        yield from (line for line in file if line.strip())


@contextmanager
def _utf8(source: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as e:
        raise ManifestError(
            source, 0, f"neither UTF-8 text nor a known video ({e.reason}). Save a manifest as UTF-8"
        ) from e


def parquet_table(source: Path, wanted: frozenset[str]) -> Table:
    """Return the `wanted` columns of a Parquet file; its "lines" are rows, counted from 1.

    Raises:
        ManifestError: If pyarrow is missing, the file is not a Parquet file, or it has no column `path`.
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
        raise ManifestError(source, 0, f"not a Parquet file ({e}). Write it again, or save it as CSV") from e
    if "path" not in columns:
        raise ManifestError(source, 0, f"missing column 'path'; found {', '.join(columns)}. Add it")
    return Table("parquet", columns, _parquet_blocks(source, [c for c in columns if c in wanted]))


def _parquet_blocks(source: Path, columns: list[str]) -> Iterator[TextBlock]:
    from pyarrow.parquet import ParquetFile

    line = 1
    with ParquetFile(source) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
            cells = {name: list(map(as_text, batch.column(name).to_pylist())) for name in columns}
            yield TextBlock(cells, range(line, line + batch.num_rows))
            line += batch.num_rows


def as_text(value: object) -> str:
    """Return a value of JSON or Parquet as a CSV file would hold it; a missing one is empty.

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
