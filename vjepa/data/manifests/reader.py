"""Reader of every kind of manifest: which videos there are, and what is known about each."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from vjepa.data.manifests.columns import INTEGER, ColumnBuilder, integer
from vjepa.data.manifests.folders import folder_table
from vjepa.data.manifests.formats import PARQUET_SUFFIXES, Table, TextBlock, parquet_table, text_table
from vjepa.data.manifests.rows import NO_LABEL, Manifest, ManifestError, ManifestRow, Rows
from vjepa.data.manifests.shard_sets import shard_set
from vjepa.data.remote import fetch, is_url, member_of
from vjepa.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vjepa.errors import DecodeError
from vjepa.files import from_home

log = logging.getLogger(__name__)

MANIFEST_COLUMNS = frozenset({"path", "label", "start", "end", "split", "group", "pair", "weight"})
MAX_ALL_CHECKED = 10_000  # manifests of up to so many rows are checked for each of their files
MAX_CLASSES = 1_000_000  # a larger integer is an identifier, and so many names would fill the memory
NUM_SAMPLED = 1_000  # files that are checked in a longer manifest


def read_manifest(
    source: str | Path,
    *,
    root: str | Path | None = None,
    label_column: str = "label",
    split: str | None = None,
    label_names: Sequence[str] = (),
) -> Manifest:
    """Read a manifest and check it.

    Up to 10,000 rows, check that each file exists; in a longer manifest, check 1,000 rows drawn with a fixed seed.
    A missing file that was not checked becomes a failed clip when it is read. URLs are not checked.

    Args:
        source: A CSV file with a header, a JSONL or Parquet file, or a headerless `path label` file (Meta's).
            A folder of class folders, of videos, of images or of frame folders; or one video.
            WebDataset shards: their `shards.json`, a folder or URL of them, or `name-{000000..000009}.tar`.
            A manifest file may also be behind a URL.
        root: Folder that relative paths in a manifest file start from (default: the manifest's own folder).
        label_column: Column that holds the labels, as names or integers.
        split: Keep only the rows with this value in the column `split`.
        label_names: Names in the order of their ids, if another manifest fixed them; any other name is then an
            error.

    Raises:
        ManifestError: With file and line.
    """
    if (shards := shard_set(source)) is not None:
        table, base, label_names = shards.table, str(source), tuple(label_names) or shards.label_names
    elif is_url(source):
        read = partial(read_manifest, label_column=label_column, split=split, label_names=label_names)
        return _read_remote(str(source), root, read)
    else:
        source = from_home(source)
        table = _table(source, MANIFEST_COLUMNS | {label_column})
        base = str(source if source.is_dir() else source.parent)
    if root is not None and table.takes_root:
        base = str(root) if is_url(root) else str(from_home(root))
    columns = ColumnBuilder(source, label_column)
    for block in table.blocks:
        columns.add(_of_split(block, split))
    if "label" in table.columns or label_column != "label":
        _require_column(source, table.columns, label_column, "label")
    if split is not None:
        _require_column(source, table.columns, "split", "split")
    if not columns.num_rows:
        raise ManifestError(
            source, 0, f"no videos found{f' of split {split!r}' if split else ''}. Add at least one"
        )
    names = tuple(label_names) or _label_names(source, list(columns.labels))
    rows = columns.rows(base, names)
    _check_files_exist(source, rows)
    manifest = Manifest(rows, names, table.kind, str(source), base, tuple(table.columns))
    log.info("%s", manifest.describe())
    return manifest


def _read_remote(url: str, root: str | Path | None, read: Callable[..., Manifest]) -> Manifest:
    """Read a manifest file, or one video, behind a URL; relative paths start from the URL's folder."""
    folder, _, name = url.partition("?")[0].rpartition("/")
    if not name:
        raise ManifestError(
            url, 0, "a folder behind a URL cannot be listed. Give a manifest file, one video, or shards there"
        )
    if Path(name).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        return Manifest((ManifestRow(url),), (), "one video", url, folder)
    try:
        content = fetch(url)
    except DecodeError as e:
        raise ManifestError(
            url, 0, f"{e.reason}. Give a manifest file, one video, or shards with their shards.json"
        ) from e
    with tempfile.TemporaryDirectory() as there:
        copy = Path(there) / name
        copy.write_bytes(content)
        try:
            manifest = read(copy, root=root or folder)
        except ManifestError as e:
            raise ManifestError(url if e.file == str(copy) else e.file, e.line, e.reason) from e
    return replace(manifest, source=url)


def _table(source: Path, wanted: frozenset[str]) -> Table:
    """Return the content of a source with the reader for its kind."""
    suffix = source.suffix.lower()
    if source.is_dir():
        return folder_table(source)
    if not source.exists():
        raise ManifestError(
            source,
            0,
            "no such manifest, folder or video. Make it: a CSV file with the header `path,label` and one "
            "video per line, or by `vjepa data manifest` for a public data set; data_manifests/README.md shows how",
        )
    if suffix in VIDEO_SUFFIXES:
        return Table.listed("one video", {"path": [source.name]})
    if suffix in IMAGE_SUFFIXES:
        return Table.listed("one image", {"path": [source.name]})
    if suffix in PARQUET_SUFFIXES:
        return parquet_table(source, wanted)
    return text_table(source, wanted)


def _of_split(block: TextBlock, split: str | None) -> TextBlock:
    if split is None or "split" not in block.cells:
        return block
    kept = [i for i, text in enumerate(block.cells["split"]) if text == split]
    cells = {name: [column[i] for i in kept] for name, column in block.cells.items()}
    return TextBlock(cells, [block.lines[i] for i in kept])


def _require_column(source: str | Path, columns: Sequence[str], column: str, what: str) -> None:
    if column not in columns:
        raise ManifestError(source, 0, f"no column {column!r} for the {what}. It has: {', '.join(columns)}")


def _label_names(source: str | Path, found: list[str]) -> tuple[str, ...]:
    """Return the class names: integers stand for themselves, names are sorted alphabetically."""
    texts = {text for text in found if text}
    if all(INTEGER.fullmatch(text) for text in texts):
        largest = max((integer(text) for text in texts), default=NO_LABEL)
        if largest >= MAX_CLASSES:
            raise ManifestError(
                source,
                0,
                f"label {largest}: integers are class numbers, 0 to {MAX_CLASSES - 1:,} at most. Number "
                "the classes from 0, or write a letter before each, which makes them names",
            )
        return tuple(str(i) for i in range(largest + 1))
    return tuple(sorted(texts))


def _check_files_exist(source: str | Path, rows: Rows) -> None:
    """Check that the files exist: each, or a sample if there are many."""
    checked = range(len(rows))
    if len(rows) > MAX_ALL_CHECKED:
        drawn = np.random.default_rng(0).choice(len(rows), NUM_SAMPLED, replace=False)
        checked = np.sort(drawn).tolist()
        log.info("%s: checked that %d of %d files exist", source, len(checked), len(rows))
    paths = ((i, rows.path_of(i)) for i in checked)
    missing = [i for i, path in paths if not (is_url(path) or member_of(path) or Path(path).exists())]
    if missing:
        count = f" ({len(missing)} of {len(checked)} checked files)" if len(missing) > 1 else ""
        raise ManifestError(
            source,
            int(rows.line[missing[0]]),
            f"{rows.path[missing[0]]}: no such file below {Path(rows.base).resolve()}{count}. Correct the path, "
            "or give the folder that paths start from (--root; for fit, --data.root)",
        )
