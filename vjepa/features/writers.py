"""From units to the result: one file of features, one index of its rows, and how they were made."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vjepa.data import Manifest
from vjepa.features.errors import FeaturesError
from vjepa.features.reader import ABOUT, INDEX, file_of
from vjepa.features.store import Entry
from vjepa.features.tokens import listing
from vjepa.features.units import Units
from vjepa.files import CHECKSUM, file_crc32, write_text
from vjepa.names import redacted

log = logging.getLogger(__name__)

Format = Literal["safetensors", "npy", "parquet"]
LISTED = 5  # failures named in an error; the rest is counted
PART_BYTES = 64e6  # of features that are written at once
ALIGNMENT = 8  # bytes of a safetensors header


class Whole:
    """Everything that the units hold, all of which are done.

    `windows` has the manifest row and seconds of each window, `shape` and `dtype` are those of all features together.
    """

    def __init__(self, units: Units, manifest: Manifest) -> None:
        self.units, self.manifest = units, manifest
        entries = [entry for unit in range(units.num_units) for entry in units.batches(unit)]
        self.windows: list[tuple[int, float, float]] = [w for e in entries for w in e.note["windows"]]
        self.failures = [failure for entry in entries for failure in entry.failures.values()]
        self.num_padded: int = sum(entry.note.get("num_padded", 0) for entry in entries)
        made = next((entry for entry in entries if entry.shape is not None), Entry([]))
        self.shape = () if made.shape is None else (len(self.windows), *made.shape)
        self.dtype: torch.dtype = getattr(torch, made.dtype)

    def parts(self) -> Iterator[tuple[list[tuple[int, float, float]], Float[Tensor, "w *feature"]]]:
        """Yield windows and their features in order, as many as fit in memory at once."""
        first = 0
        for unit in range(self.units.num_units):
            features = self.units.store(unit).records()
            if features is None:
                continue
            step = max(1, int(PART_BYTES * len(features) / features.nbytes))
            for part in features.split(step):
                yield self.windows[first : first + len(part)], part
                first += len(part)


def merge(out: Path, units: Units, manifest: Manifest, about: dict[str, Any]) -> dict[str, Any]:
    """Write the features of all units as one file, their index and `features.json`; delete the units' folder.

    Returns:
        The content of `features.json`.

    Raises:
        FeaturesError: If there is not one feature.
    """
    whole = Whole(units, manifest)
    if not whole.shape:
        shutil.rmtree(units.folder)
        raise FeaturesError(
            f"none of {len(manifest)} clips can be read: {listing(whole.failures, LISTED)}. Mend the files."
        )
    # made among the units and moved: a kill leaves nothing half written, and nothing but units
    made = {name: units.folder / name for name in (file_of(about["format"]), INDEX, ABOUT)}
    WRITERS[about["format"]](whole, made[file_of(about["format"])])
    write_index(whole, made[INDEX])
    checksums = {}
    for name in (file_of(about["format"]), INDEX):
        with made[name].open("rb") as written:
            checksums[name] = file_crc32(written)
    content = about | {
        CHECKSUM: checksums,
        "shape": list(whole.shape),
        "label_names": list(manifest.label_names),
        "failures": [asdict(failure) for failure in whole.failures],
        "num_padded": whole.num_padded,
    }
    if whole.num_padded:
        log.warning(
            "%d of %d windows are longer than their video and repeat its last frame",
            whole.num_padded,
            len(whole.windows),
        )
    write_text(json.dumps(content, indent=1), made[ABOUT])
    for name, file in made.items():  # `features.json` last: with it the folder is complete
        os.replace(file, out / name)
    shutil.rmtree(units.folder)
    return content


def write_index(whole: Whole, path: Path) -> None:
    """Write what each row of the features is, as CSV."""
    names = whole.manifest.label_names
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        file.write(_csv_line(["path", "start", "end", "label", "label_name", "manifest_row"]))
        for index, start, end in whole.windows:
            row = whole.manifest.rows[index]
            name = names[row.label] if 0 <= row.label < len(names) else ""
            cells = [redacted(row.path), repr(start), repr(end), row.label, name, index]
            file.write(_csv_line(cells))


def _csv_line(cells: list[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(
        cells
    )  # its own "\r\n": with another line end it does not quote a "\r" in a name
    return line.getvalue().removesuffix("\r\n") + "\n"


def write_safetensors(whole: Whole, path: Path) -> None:
    """Write one safetensors file: `features`, `index` (manifest rows), `seconds`, and `label` if there are any."""
    index = torch.tensor([row for row, _, _ in whole.windows], dtype=torch.int64)
    seconds = torch.tensor([times for _, *times in whole.windows], dtype=torch.float64)
    small = {"index": index, "seconds": seconds}
    if whole.manifest.label_names:
        small["label"] = torch.tensor([whole.manifest.rows[i].label for i in index.tolist()])
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in small.items():
        header[name] = _header(tensor.dtype, tuple(tensor.shape), at)
        at += tensor.nbytes
    header["features"] = _header(whole.dtype, whole.shape, at)  # last: its elements need the least alignment
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in small.values():
            file.write(tensor.numpy().tobytes())
        for _, features in whole.parts():
            file.write(features.contiguous().view(torch.uint8).numpy().data)


def write_npy(whole: Whole, path: Path) -> None:
    """Write one .npy file of the features alone."""
    like = torch.empty(0, dtype=whole.dtype).numpy().dtype
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(like), "fortran_order": False, "shape": whole.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _, features in whole.parts():
            file.write(features.contiguous().numpy().data)


def write_parquet(whole: Whole, path: Path) -> None:
    """Write one Parquet file: path, start, end, label, `features`: flat lists whose shape is in the metadata."""
    import pyarrow as pa
    from pyarrow import parquet

    width = int(np.prod(whole.shape[1:]))
    element = pa.float16() if whole.dtype == torch.float16 else pa.float32()
    names = {"path": pa.string(), "start": pa.float64(), "end": pa.float64(), "label": pa.int64()}
    schema = pa.schema(
        [*names.items(), ("features", pa.list_(element, width))],
        metadata={"shape": json.dumps(list(whole.shape[1:]))},
    )
    with parquet.ParquetWriter(path, schema) as writer:
        for windows, features in whole.parts():
            rows = [whole.manifest.rows[i] for i, _, _ in windows]
            flat = pa.array(features.flatten().numpy(), type=element)
            columns = [
                pa.array([redacted(row.path).encode("utf-8", "backslashreplace").decode() for row in rows]),
                pa.array([start for _, start, _ in windows]),
                pa.array([end for _, _, end in windows]),
                pa.array([row.label for row in rows]),
                pa.FixedSizeListArray.from_arrays(flat, width),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


WRITERS = {"safetensors": write_safetensors, "npy": write_npy, "parquet": write_parquet}


def check_format(kind: Format, dtype: str) -> None:
    """Check before the work that such a file can be written.

    Raises:
        FeaturesError: If it cannot hold that type, or its package is missing.
    """
    if kind != "safetensors" and dtype == "bf16":
        raise FeaturesError(
            f"format {kind} holds no bf16. Use --dtype fp16 or fp32, or --format safetensors."
        )
    if kind == "parquet":
        try:
            import pyarrow  # noqa: F401  only whether it is there
        except ImportError as error:
            raise FeaturesError(
                'format parquet needs pyarrow: pip install "vjepa-toolkit[shards]", or give another --format.'
            ) from error


def _header(dtype: torch.dtype, shape: tuple[int, ...], at: int) -> dict[str, Any]:
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
    size = dtype.itemsize * int(np.prod(shape))
    return {"dtype": names.get(dtype, "F64"), "shape": list(shape), "data_offsets": [at, at + size]}
