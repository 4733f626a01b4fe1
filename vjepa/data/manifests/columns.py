"""Conversion of blocks of text to the checked columns of a manifest."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from vjepa.data.manifests.formats import TextBlock
from vjepa.data.manifests.rows import NO_LABEL, ManifestError, Rows, Texts

INTEGER = re.compile(r"-?\d+(\.0+)?")  # pandas writes 3 as 3.0 where a label is missing


class ColumnBuilder:
    """Gathers blocks of text of a manifest into columns; `labels` numbers the labels in order of appearance."""

    def __init__(self, source: str | Path, label_column: str) -> None:
        self.source = source
        self.labels: dict[str, int] = {}
        self.num_rows = 0
        self._label_column = label_column
        self._texts: dict[str, list[Texts]] = {"path": [], "group": [], "pair": [], "split": []}
        self._numbers: dict[str, list[Float64[ndarray, "_"]]] = {"start": [], "end": [], "weight": []}
        self._codes: list[Int64[ndarray, "_"]] = []
        self._lines: list[Int64[ndarray, "_"]] = []

    def add(self, block: TextBlock) -> None:
        """Append some rows.

        Raises:
            ManifestError: If a path is empty, a number is not valid, or an end is not after its start.
        """
        count = len(block.lines)
        empty = [""] * count
        paths = block.cells["path"]
        if "" in paths:
            line = block.lines[list(paths).index("")]
            raise ManifestError(self.source, line, "the path is empty. Give each row a video file")
        for name, texts in self._texts.items():
            texts.append(Texts.of(block.cells.get(name, empty)))
        for name, numbers in self._numbers.items():
            numbers.append(self._parsed(name, block.cells.get(name, empty), block.lines))
        start, end = self._numbers["start"][-1], self._numbers["end"][-1]
        if (bad := np.flatnonzero(end <= start)).size:
            i = bad[0]
            reason = f"end {end[i]:g} is not after start {start[i]:g}. Give both in seconds"
            raise ManifestError(self.source, block.lines[i], reason)
        known = self.labels
        codes = [known.setdefault(text, len(known)) for text in block.cells.get(self._label_column, empty)]
        self._codes.append(np.array(codes, np.int64))
        self._lines.append(np.array(block.lines, np.int64))
        self.num_rows += count

    def rows(self, base: str, names: tuple[str, ...]) -> Rows:
        """Return all rows, their labels as indices into `names`.

        Raises:
            ManifestError: If a label is not among the names.
        """
        codes, lines = np.concatenate(self._codes), np.concatenate(self._lines)
        known = {name: i for i, name in enumerate(names)}
        ids = [
            _label_id(self.source, int(lines[np.argmax(codes == code)]), text, known)
            for text, code in self.labels.items()
        ]
        path, group, pair, split = (Texts.joined(texts) for texts in self._texts.values())
        start, end, weight = (np.concatenate(numbers) for numbers in self._numbers.values())
        return Rows(
            base=base,
            path=path,
            label=np.array(ids, np.int64)[codes],
            start=start,
            end=end,
            group=group,
            weight=np.where(np.isnan(weight), 1.0, weight),
            line=lines,
            pair=pair,
            split=split,
        )

    def _parsed(self, column: str, texts: Sequence[str], lines: Sequence[int]) -> Float64[ndarray, "_"]:
        try:
            numbers = np.array([float(text) if text else np.nan for text in texts], np.float64)
        except ValueError:
            numbers = np.array([np.inf])
        if np.isinf(numbers).any() or np.isnan(numbers).sum() != list(texts).count(""):
            line, text = next((n, t) for n, t in zip(lines, texts, strict=True) if t and not _is_number(t))
            reason = f"{column} {text!r} is not a number. Give a number, or leave the cell empty"
            raise ManifestError(self.source, line, reason)
        if column != "weight" and (bad := np.flatnonzero(numbers < 0)).size:
            reason = f"{column} {numbers[bad[0]]:g} is negative. Give seconds from the start of the file"
            raise ManifestError(self.source, lines[bad[0]], reason)
        return numbers


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def integer(text: str) -> int:
    """Return the number that a text of the form `INTEGER` stands for.

    >>> integer("007"), integer("3.0")
    (7, 3)
    """
    return int(text.partition(".")[0])


def _label_id(source: str | Path, line: int, text: str, ids: dict[str, int]) -> int:
    if text in ids:
        return ids[text]
    number = str(integer(text)) if INTEGER.fullmatch(text) else text
    if number in ids:
        return ids[number]
    if number in ("", str(NO_LABEL)):
        return NO_LABEL
    if re.fullmatch(r"-\d+", number):
        raise ManifestError(
            source, line, f"label {text} is negative. Leave the cell empty if there is no label"
        )
    known = list(ids)[:8]
    raise ManifestError(
        source,
        line,
        f"label {text!r} is not among the known labels {', '.join(known)}"
        f"{', ...' if len(ids) > len(known) else ''}. Correct it, or add it to the training manifest",
    )
