"""From parts to what is left: one file of features, one index of its rows, and how they were made."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vjepa.data import Manifest
from vjepa.extraction.errors import ExtractionError
from vjepa.extraction.parts import Part, Parts
from vjepa.features import ABOUT, INDEX, file_of
from vjepa.files import write_text

Format = Literal["safetensors", "npy", "parquet"]
LISTED = 5  # failures named in an error; the rest is counted
ALIGNMENT = 8  # bytes of a safetensors header


@dataclass(frozen=True)
class Whole:
    """Everything that the parts hold: `manifest` of their rows, `dtype` and `shape` of the features together."""

    parts: Parts
    manifest: Manifest
    dtype: torch.dtype
    shape: tuple[int, ...]

    def walk(self) -> Iterator[tuple[int, int, Part]]:
        """Unit, number and content of each part, in order."""
        for unit in range(self.parts.num_units):
            for number, part in enumerate(self.parts.of(unit)):
                yield unit, number, part

    def features(self) -> Iterator[Float[Tensor, "w *feature"]]:
        """Features, a part at a time."""
        return (self.parts.features(u, n) for u, n, part in self.walk() if part.windows)

    def windows(self) -> Iterator[tuple[int, float, float]]:
        """Manifest row and seconds of each window."""
        return (window for _, _, part in self.walk() for window in part.windows)

    def failures(self) -> list[tuple[int, str, str]]:
        """Row, path and reason of what could not be read."""
        return [failure for _, _, part in self.walk() for failure in part.failures]


def merge(out: Path, parts: Parts, manifest: Manifest, about: dict[str, Any]) -> dict[str, Any]:
    """Write the features of all parts as one file, their index and `features.json`; delete the parts.

    Args:
        out: The folder.
        parts: What was written; every unit is done.
        manifest: The clips' manifest.
        about: How the features were made; `format` says what file to write.

    Returns:
        The content of `features.json`.

    Raises:
        ExtractionError: If there is not one feature.
    """
    whole = _whole(parts, manifest)
    failures = [{"path": path, "reason": reason} for _, path, reason in whole.failures()]
    if not whole.shape:
        shutil.rmtree(parts.folder)
        raise ExtractionError(
            f"none of {len(manifest)} clips can be read: {_listed(failures)}. Mend the files."
        )
    # made among the parts and moved: a kill leaves nothing half written, and nothing but parts
    made = {name: parts.folder / name for name in (file_of(about["format"]), INDEX, ABOUT)}
    WRITERS[about["format"]](whole, made[file_of(about["format"])])
    write_index(whole, made[INDEX])
    content = about | {
        "shape": list(whole.shape),
        "label_names": list(manifest.label_names),
        "failures": failures,
    }
    write_text(json.dumps(content, indent=1), made[ABOUT])
    for name, file in made.items():  # `features.json` last: with it the folder is whole
        os.replace(file, out / name)
    shutil.rmtree(parts.folder)
    return content


def write_index(whole: Whole, path: Path) -> None:
    """Write what each row of the features is, as CSV.

    Args:
        whole: The features.
        path: The file.
    """
    names = whole.manifest.label_names
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "start", "end", "label", "label_name", "manifest_row"])
        for index, start, end in whole.windows():
            row = whole.manifest.rows[index]
            name = names[row.label] if 0 <= row.label < len(names) else ""
            writer.writerow([row.path, repr(start), repr(end), row.label, name, index])


def write_safetensors(whole: Whole, path: Path) -> None:
    """One safetensors file: `features`, `index` (manifest rows), `seconds`, and `label` where there are labels.

    Args:
        whole: The features; they are never all in memory.
        path: The file.
    """
    windows = list(whole.windows())
    index = torch.tensor([row for row, _, _ in windows], dtype=torch.int64)
    seconds = torch.tensor([times for _, *times in windows], dtype=torch.float64)
    small = {"index": index, "seconds": seconds}
    if whole.manifest.label_names:
        small["label"] = torch.tensor([whole.manifest.rows[i].label for i in index.tolist()])
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in small.items():
        header[name] = _entry(tensor.dtype, tuple(tensor.shape), at)
        at += tensor.nbytes
    header["features"] = _entry(whole.dtype, whole.shape, at)  # last: its elements need the least alignment
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in small.values():
            file.write(tensor.numpy().tobytes())
        for features in whole.features():
            file.write(features.contiguous().view(torch.uint8).numpy().tobytes())


def write_npy(whole: Whole, path: Path) -> None:
    """One .npy file of the features alone.

    Args:
        whole: The features; fp32 or fp16.
        path: The file.
    """
    like = torch.empty(0, dtype=whole.dtype).numpy().dtype
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(like), "fortran_order": False, "shape": whole.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for features in whole.features():
            file.write(features.numpy().tobytes())


def write_parquet(whole: Whole, path: Path) -> None:
    """One Parquet file: path, start, end, label, and `features`, flat lists whose shape is in the file's metadata.

    Args:
        whole: The features; fp32 or fp16.
        path: The file.
    """
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
        for unit, number, part in whole.walk():
            if not part.windows:
                continue
            rows = [whole.manifest.rows[i] for i, _, _ in part.windows]
            flat = pa.array(whole.parts.features(unit, number).flatten().numpy(), type=element)
            columns = [
                pa.array([row.path for row in rows]),
                pa.array([start for _, start, _ in part.windows]),
                pa.array([end for _, _, end in part.windows]),
                pa.array([row.label for row in rows]),
                pa.FixedSizeListArray.from_arrays(flat, width),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


WRITERS = {"safetensors": write_safetensors, "npy": write_npy, "parquet": write_parquet}


def check_format(kind: Format, dtype: str) -> None:
    """See before the work that such a file can be written.

    Raises:
        ExtractionError: If it cannot hold that type, or its package is missing.
    """
    if kind != "safetensors" and dtype == "bf16":
        raise ExtractionError(
            f"format {kind} knows no bf16. Use --dtype fp16 or fp32, or --format safetensors."
        )
    if kind == "parquet":
        try:
            import pyarrow  # noqa: F401  only whether it is there
        except ImportError as error:
            raise ExtractionError(
                'format parquet needs pyarrow: pip install "vjepa-toolkit[shards]", or give another --format.'
            ) from error


def _entry(dtype: torch.dtype, shape: tuple[int, ...], at: int) -> dict[str, Any]:
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
    size = dtype.itemsize * int(np.prod(shape))
    return {"dtype": names.get(dtype, "F64"), "shape": list(shape), "data_offsets": [at, at + size]}


def _whole(parts: Parts, manifest: Manifest) -> Whole:
    dtype, count = torch.float32, 0
    shape: tuple[int, ...] = ()
    empty = Whole(parts, manifest, dtype, shape)
    for unit, number, part in empty.walk():
        if part.windows and not count:
            first = parts.features(unit, number)
            dtype, shape = first.dtype, tuple(first.shape[1:])
        count += len(part.windows)
    return Whole(parts, manifest, dtype, (count, *shape)) if count else empty


def _listed(failures: list[dict[str, str]]) -> str:
    named = "; ".join(f"{failure['path']} ({failure['reason']})" for failure in failures[:LISTED])
    return named + (f"; and {len(failures) - LISTED} more" if len(failures) > LISTED else "")
