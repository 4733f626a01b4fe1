"""Files and rows that `vjepa data check` found unusable, removed from a manifest."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vjepa.data.manifests.rows import Manifest, ManifestError, Rows, join_path
from vjepa.data.remote import is_url
from vjepa.files import from_home
from vjepa.names import redacted
from vjepa.readers import csv_errors

log = logging.getLogger(__name__)

QUARANTINE_FILE = "quarantine.csv"


class Banned(NamedTuple):
    """A file that must not be read; with `start` or `end`, only that part of it."""

    path: str
    start: float | None = None
    end: float | None = None


class Quarantine:
    """The entries of a quarantine, and which of them were found in a manifest.

    Args:
        source: A CSV with the column `path` and optionally `start` and `end`, or the folder of a check. A relative
            path starts from the current folder, or from the folder that the manifest's paths start from.

    Raises:
        ManifestError: With file and line.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = from_home(source)
        if self.source.is_dir():
            self.source /= QUARANTINE_FILE
        self.banned = list(_read(self.source))
        self._found: set[Banned] = set()

    def without(self, manifest: Manifest) -> Manifest:
        """Return the manifest without the rows in quarantine, with labels and identities; raise if no row remains."""
        banned: dict[str, list[Banned]] = {}
        for one in self.banned:
            for place in {absolute(one.path), absolute(join_path(manifest.base, one.path))}:
                banned.setdefault(place, []).append(one)
        last_names = {_last_name(os.fsencode(place)) for place in banned}
        rows = manifest.rows if isinstance(manifest.rows, Rows) else Rows.of(manifest.rows)
        kept = np.ones(len(rows), bool)
        for i, path in enumerate(rows.path.encoded()):
            if _last_name(path) not in last_names:  # the whole path costs far more to make
                continue
            row = rows[i]
            for one in banned.get(absolute(row.path), ()):
                if (one.start, one.end) in ((None, None), (row.start, row.end)):
                    kept[i] = False
                    self._found.add(one)
        if not kept.any():
            raise ManifestError(
                manifest.source,
                0,
                f"all rows are in quarantine by {self.source}. Repair the files, or check them again",
            )
        if not kept.all():
            log.info("%d of %d rows of %s are in quarantine", (~kept).sum(), len(kept), manifest.source)
        return replace(manifest, rows=rows.take(np.flatnonzero(kept)))

    def warn_of_unknown(self) -> None:
        """Log how many entries were in no manifest: a sign of a moved data set."""
        unknown = [one for one in self.banned if one not in self._found]
        if unknown:
            count = (
                f"{len(unknown)} of {len(self.banned)} entries are in no manifest, such as {unknown[0].path}"
            )
            log.warning("%s: %s. If the files were moved, check them again", self.source, count)


def absolute(path: str) -> str:
    """Return the absolute path; of a URL, without credentials, which a quarantine does not hold."""
    return redacted(path) if is_url(path) else os.path.abspath(path)


def _last_name(path: bytes) -> bytes:
    path = path.split(b"?")[0]  # of a URL: what follows may be hidden, or hold slashes
    return path[max(path.rfind(b"/"), path.rfind(b"\\")) + 1 :]


def _read(source: Path) -> Iterator[Banned]:
    if not source.is_file():
        raise ManifestError(
            source, 0, "no such quarantine. Give the folder that `vjepa data check --out` wrote to, or a CSV"
        )
    with csv_errors(source), source.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise ManifestError(
                source, 1, "missing column 'path'. Begin the file with the header `path,reason`"
            )
        for row in reader:
            try:
                start, end = (float(row[name]) if row.get(name) else None for name in ("start", "end"))
            except ValueError as e:
                raise ManifestError(
                    source, reader.line_num, f"{e}. Give start and end in seconds, or leave the cells empty"
                ) from e
            yield Banned(row["path"], start, end)
