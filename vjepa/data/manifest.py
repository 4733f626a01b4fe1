"""Which videos there are and what is known of each: reads every kind of manifest into one."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vjepa.data.remote import is_url, member_of

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .wmv .flv .ts .3gp .gif".split())
HEADERLESS = re.compile(r"(?P<path>.+?)(?:::|[ \t]+)(?P<label>-?\d+)")
NO_LABEL = -1


class ManifestError(ValueError):
    """A manifest that cannot be used: which file, which line, what is wrong."""

    def __init__(self, file: str | Path, line: int, reason: str) -> None:
        super().__init__(str(file), line, reason)
        self.file = str(file)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


class ManifestRow(NamedTuple):
    """One clip source: a video file, or the part of it from `start` to `end` seconds."""

    path: str
    label: int = NO_LABEL
    start: float | None = None
    end: float | None = None
    group: str = ""
    weight: float = 1.0
    line: int = 0


@dataclass(frozen=True)
class Manifest:
    """All rows of a manifest; `label` of a row is an index into `label_names`, or -1.

    `kind` and `source` say what was read, `base` is the folder that relative paths start from.
    """

    rows: tuple[ManifestRow, ...]
    label_names: tuple[str, ...]
    kind: str
    source: str
    base: str = ""
    columns: tuple[str, ...] = field(default=("path",))

    def __len__(self) -> int:
        return len(self.rows)

    def describe(self) -> str:
        """One line that says what was found.

        >>> Manifest((ManifestRow("a.mp4"),), (), "one video", "a.mp4").describe()
        '1 clip, no labels, from one video a.mp4'
        """
        clips = f"{len(self.rows):,} clip{'s' * (len(self.rows) != 1)}"
        count = len(self.label_names)
        classes = f"{count:,} class{'es' * (count != 1)}" if count else "no labels"
        return f"{clips}, {classes}, from {self.kind} {self.source}"

    def __repr__(self) -> str:
        return f"Manifest({self.describe()})"


class _Entry(NamedTuple):
    """A row as written: text by column, and its line."""

    fields: dict[str, str]
    line: int


def read_manifest(
    source: str | Path,
    *,
    root: str | Path | None = None,
    label_column: str = "label",
    split: str | None = None,
    label_names: Sequence[str] = (),
) -> Manifest:
    """Read a manifest and check it.

    Args:
        source: a CSV file with a header, a JSONL file, a headerless `path label` file (Meta's), a folder of
            class folders, a flat folder of videos, one video, or WebDataset shards: a folder or URL of them,
            their `shards.json`, or `name-{000000..000009}.tar`.
        root: folder that relative paths in a manifest file start from (default: the manifest's own folder).
        label_column: column that holds the label, by name or by integer.
        split: keep only the rows whose column `split` says so.
        label_names: names in the order of their ids, where another manifest fixed them; a name not among them
            is then an error.

    Raises:
        ManifestError: naming file and line.
    """
    from vjepa.data.shard_reader import KIND, shard_set  # it makes rows and errors of this module

    shards = shard_set(source)
    source = Path(source).expanduser()
    if shards is not None:
        cells = zip(*shards.columns.values(), strict=True)
        entries = [_Entry(dict(zip(shards.columns, row, strict=True)), 0) for row in cells]
        kind, columns = KIND, tuple(shards.columns)
        label_names = tuple(label_names) or shards.label_names
    elif source.is_dir():
        kind, columns, entries = _read_folder(source)
    elif not source.exists():
        raise ManifestError(
            source,
            0,
            "no such manifest, folder or video. Make it: a CSV file with the header `path,label` and one "
            "video a line; data_manifests/README.md shows how for Kinetics-400, SSv2 and videos of your own",
        )
    elif source.suffix.lower() in VIDEO_SUFFIXES:
        kind, columns, entries = "one video", ("path",), [_Entry({"path": source.name}, 0)]
    else:
        kind, columns, entries = _read_text(source)
    base = source if source.is_dir() else source.parent
    if root is not None and kind in ("csv", "jsonl", "path-label list"):
        base = Path(root).expanduser()
    if "label" in columns or label_column != "label":
        _require_column(source, columns, label_column, "label")
    if split is not None:
        _require_column(source, columns, "split", "split")
        entries = [e for e in entries if e.fields["split"] == split]
    if not entries:
        raise ManifestError(
            source, 0, f"no videos found{f' of split {split!r}' if split else ''}. Add at least one"
        )
    names = tuple(label_names) or _label_names(entries, label_column)
    ids = {name: i for i, name in enumerate(names)}
    rows = tuple(_row(source, base, entry, label_column, ids) for entry in entries)
    manifest = Manifest(rows, names, kind, str(source), str(base), tuple(columns))
    log.info("%s", manifest.describe())
    return manifest


def _read_folder(folder: Path) -> tuple[str, Sequence[str], list[_Entry]]:
    flat = _videos_in(folder)
    if flat:
        return "flat folder", ("path",), [_Entry({"path": p.name}, 0) for p in flat]
    entries = [
        _Entry({"path": f"{c.name}/{p.name}", "label": c.name}, 0)
        for c in sorted(folder.iterdir())
        if c.is_dir()
        for p in _videos_in(c)
    ]
    if not entries:
        raise ManifestError(
            folder,
            0,
            f"no videos here, nor one folder down. Give a folder of videos or of class folders "
            f"({' '.join(sorted(VIDEO_SUFFIXES))}), or a manifest (data_manifests/README.md)",
        )
    return "class folders", ("path", "label"), entries


def _videos_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())


def _read_text(source: Path) -> tuple[str, Sequence[str], list[_Entry]]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "").strip()
            file.seek(0)
            if source.suffix.lower() in (".jsonl", ".ndjson") or first.startswith("{"):
                entries = list(_jsonl_entries(source, file))
                return "jsonl", tuple(dict.fromkeys(k for e in entries for k in e.fields)), entries
            header = [name.strip() for name in next(csv.reader([first]), [])]
            if "path" in header:
                return "csv", header, list(_csv_entries(source, file))
            if HEADERLESS.fullmatch(first):
                return "path-label list", ("path", "label"), list(_headerless_entries(source, file))
    except UnicodeDecodeError as e:
        raise ManifestError(
            source, 0, f"neither UTF-8 text nor a known video ({e.reason}). Save a manifest as UTF-8"
        ) from e
    if not first:
        raise ManifestError(source, 0, "the manifest is empty. Begin it with the header `path,label`")
    raise ManifestError(
        source,
        1,
        f"missing column 'path'; found {', '.join(header)}. Begin the file with a header such as "
        "`path,label`, with commas between",
    )


def _csv_entries(source: Path, file: Iterator[str]) -> Iterator[_Entry]:
    reader = csv.reader(file)
    header: list[str] = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [name.strip() for name in cells]
            continue
        if len(cells) != len(header):
            raise ManifestError(
                source,
                reader.line_num,
                f"{len(cells)} cells, the header has {len(header)} ({', '.join(header)}). "
                "Put quotes around a value that holds a comma",
            )
        yield _Entry(dict(zip(header, (cell.strip() for cell in cells), strict=True)), reader.line_num)


def _jsonl_entries(source: Path, file: Iterator[str]) -> Iterator[_Entry]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            found = json.loads(text)
        except json.JSONDecodeError as e:
            raise ManifestError(source, line, f"not JSON ({e.msg}). Write one object a line") from e
        if not isinstance(found, dict) or "path" not in found:
            raise ManifestError(
                source, line, 'missing "path". Write one object a line: {"path": "a.mp4", "label": 3}'
            )
        yield _Entry({k: "" if v is None else str(v) for k, v in found.items()}, line)


def _headerless_entries(source: Path, file: Iterator[str]) -> Iterator[_Entry]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        match = HEADERLESS.fullmatch(text.strip())
        if match is None:
            raise ManifestError(
                source, line, f"{text.strip()!r} is not `path label`. Put an integer after the path"
            )
        yield _Entry(match.groupdict(), line)


def _require_column(source: Path, columns: Sequence[str], column: str, what: str) -> None:
    if column not in columns:
        raise ManifestError(source, 0, f"no column {column!r} for the {what}. It has: {', '.join(columns)}")


def _label_names(entries: list[_Entry], column: str) -> tuple[str, ...]:
    """Integers stand for themselves; names are numbered in alphabetical order."""
    found = {e.fields[column] for e in entries if e.fields.get(column)}
    if all(re.fullmatch(r"-?\d+", text) for text in found):
        return tuple(str(i) for i in range(max((int(text) for text in found), default=NO_LABEL) + 1))
    return tuple(sorted(found))


def _row(source: Path, base: Path, entry: _Entry, label_column: str, ids: dict[str, int]) -> ManifestRow:
    fields, line = entry
    if not fields["path"]:
        raise ManifestError(source, line, "the path is empty. Give each row a video file")
    path = base / Path(fields["path"]).expanduser()
    if not (is_url(fields["path"]) or member_of(fields["path"]) or path.is_file()):
        raise ManifestError(
            source,
            line,
            f"{fields['path']}: no such file below {base.resolve()}. Correct the path, or give the folder that "
            "paths start from (--root; of fit, --data.root)",
        )
    start, end = _seconds(source, line, "start", fields), _seconds(source, line, "end", fields)
    if start is not None and end is not None and end <= start:
        raise ManifestError(source, line, f"end {end:g} is not after start {start:g}. Give both in seconds")
    return ManifestRow(
        path=fields["path"] if is_url(fields["path"]) or member_of(fields["path"]) else str(path),
        label=_label_id(source, line, fields.get(label_column, ""), ids),
        start=start,
        end=end,
        group=fields.get("group", ""),
        weight=1.0 if (weight := _seconds(source, line, "weight", fields)) is None else weight,
        line=line,
    )


def _label_id(source: Path, line: int, text: str, ids: dict[str, int]) -> int:
    if text in ids:
        return ids[text]
    if re.fullmatch(r"-?\d+", text) and str(int(text)) in ids:
        return ids[str(int(text))]
    if text in ("", str(NO_LABEL)):
        return NO_LABEL
    if re.fullmatch(r"-\d+", text):
        raise ManifestError(source, line, f"label {text} is negative. Leave it empty where there is none")
    known = list(ids)[:8]
    raise ManifestError(
        source,
        line,
        f"label {text!r} is not among the known labels {', '.join(known)}"
        f"{', ...' if len(ids) > len(known) else ''}. Correct it, or add it to the training manifest",
    )


def _seconds(source: Path, line: int, column: str, fields: dict[str, str]) -> float | None:
    text = fields.get(column, "")
    try:
        return float(text) if text else None
    except ValueError as e:
        raise ManifestError(
            source, line, f"{column} {text!r} is not a number. Give a number or leave it empty"
        ) from e
