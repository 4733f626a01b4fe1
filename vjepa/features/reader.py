"""Folders of features, as `vjepa extract` writes them: rows, a pandas table, a torch data set, timelines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.utils.data import Dataset

from vjepa.errors import FileError
from vjepa.features.errors import FeaturesError
from vjepa.readers import UNEXPECTED, content_of, read_csv, read_json, tensors_header

if TYPE_CHECKING:
    import pandas as pd

    from vjepa.features.clip_spec import ClipSpec

ABOUT, INDEX = "features.json", "index.csv"
POOLS, WHICH = ("mean", "none", "frame", "attentive"), ("target", "context", None)
FORMATS = ("safetensors", "npy", "parquet")
STORED = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def damaged(file: Path, why: object) -> FeaturesError:
    """Return the error to raise for a file that was damaged after it was written."""
    return FeaturesError(f"{file} is damaged ({why}). Delete the folder and run its `vjepa extract` again.")


class FeatureRow(NamedTuple):
    """The source of a row of features: `path`, seconds of its first and last frame, class id (-1: none) and name."""

    path: str
    start: float
    end: float
    label: int
    label_name: str
    manifest_row: int


@dataclass(frozen=True)
class Timeline:
    """Features of one video in order: `features` (W, ...), and `seconds` (W, 2) of first and last frames."""

    features: Float[Tensor, "w *feature"]
    seconds: Float64[Tensor, "w 2"]


class FeatureStore(Dataset[tuple[Tensor, int]]):
    """Features in a folder; as a data set, pairs of a feature and its class id."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.about: dict[str, Any] = read_json(self.folder / ABOUT)
        except FileNotFoundError as error:
            raise FeaturesError(
                f"{folder} has no {ABOUT}: no features, or not all of them. Give a folder that `vjepa extract` "
                "has finished; the same command again finishes one that was stopped."
            ) from error
        except FileError as error:
            raise damaged(self.folder / ABOUT, error) from error
        self._check(self.folder / ABOUT)

    def _check(self, file: Path) -> None:
        """Check the parts of `features.json` that are read later; a command must not stop half-way for them."""
        with content_of(file, "what `vjepa extract` writes"):
            shape, names, encoder = (self.about[key] for key in ("shape", "label_names", "encoder"))
            if self.about["dtype"] not in STORED or self.about["format"] not in FORMATS:
                raise ValueError(f"dtype {self.about['dtype']!r}, format {self.about['format']!r}")
            if not all(isinstance(n, int) and n >= 0 for n in shape) or not shape:
                raise ValueError(f"shape {shape!r}")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"label_names {names!r}")
            if self.about["pool"] not in POOLS or not isinstance(self.about["probe"], str | None):
                raise ValueError(f"pool {self.about['pool']!r}, probe {self.about['probe']!r}")
            if not isinstance(self.about["decoder"], str) or encoder.get("which") not in WHICH:
                raise ValueError(f"decoder {self.about['decoder']!r}, encoder {encoder!r}")
            if self.about["precision"] not in ("fp32", "bf16"):
                raise ValueError(f"precision {self.about['precision']!r}")
            if not isinstance(encoder["path"], str) or not isinstance(encoder["digest"], str):
                raise ValueError(f"encoder {encoder!r}")

    def __len__(self) -> int:
        return self.about["shape"][0]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.features[index], self.rows[index].label

    @cached_property
    def spec(self) -> ClipSpec:
        """How the videos were cut into clips."""
        from vjepa.features.clip_spec import spec_of_features  # opening a folder needs no decoder

        with content_of(self.folder / ABOUT, "how clips are cut"):
            return spec_of_features(self.about)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their ids."""
        return tuple(self.about["label_names"])

    @cached_property
    def features(self) -> Float[Tensor, "w *feature"]:
        """All features (rows, ...), mapped from the file, which does not change; a Parquet file is read whole.

        Raises:
            FeaturesError: If the file is damaged.
        """
        file = self.folder / file_of(self.about["format"])
        try:
            return self._read(file)
        except UNEXPECTED as error:
            raise damaged(file, error) from error

    def _read(self, file: Path) -> Tensor:
        shape, dtype = tuple(self.about["shape"]), STORED[self.about["dtype"]]
        if self.about["format"] == "parquet":
            from pyarrow import parquet

            column = parquet.read_table(file, columns=["features"])["features"]
            flat = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
            return torch.from_numpy(flat).reshape(shape)
        if self.about["format"] == "npy":
            return torch.from_numpy(np.load(file, mmap_mode="c"))
        header = tensors_header(file)
        begin, end = header["features"]["data_offsets"]
        # "c" (copy on write): torch gets a tensor that may be changed, and the file does not change
        raw = np.memmap(file, np.uint8, mode="c", offset=header["offset"] + begin, shape=(end - begin,))
        return torch.from_numpy(raw).view(dtype).reshape(shape)

    @cached_property
    def rows(self) -> list[FeatureRow]:
        """The source of each row.

        Raises:
            FeaturesError: If the list is damaged.
        """
        try:
            rows = self._read_rows()
        except UNEXPECTED as error:
            raise damaged(self.folder / INDEX, error) from error
        if len(rows) != len(self):
            raise damaged(self.folder / INDEX, f"{len(rows)} rows of {len(self)}")
        return rows

    def _read_rows(self) -> list[FeatureRow]:
        return [
            FeatureRow(
                path=cells["path"],
                start=float(cells["start"]),
                end=float(cells["end"]),
                label=int(cells["label"]),
                label_name=cells["label_name"],
                manifest_row=int(cells["manifest_row"]),
            )
            for _, cells in read_csv(self.folder / INDEX, FeatureRow._fields)
        ]

    @property
    def labels(self) -> Int[Tensor, "w"]:
        """Class id of each row, -1 where it has none."""
        return torch.tensor([row.label for row in self.rows], dtype=torch.int64)

    def pandas(self) -> pd.DataFrame:
        """Return the rows as a table, with a column `features` of arrays.

        Raises:
            FeaturesError: If pandas is missing.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise FeaturesError("pandas is not installed: pip install pandas, or use `.rows`.") from error
        table = pd.DataFrame(self.rows)
        table["features"] = list(self.features.float().numpy())
        return table

    def timeline(self, path: str) -> Timeline:
        """Return the features of one video, in the order of its windows.

        Raises:
            FeaturesError: If no row is of this video.
        """
        chosen = [i for i, row in enumerate(self.rows) if row.path == path]
        if not chosen:
            known = ", ".join(sorted({row.path for row in self.rows})[:3])
            raise FeaturesError(f"no features of {path} in {self.folder}. It has those of {known}, ...")
        seconds = torch.tensor([self.rows[i][1:3] for i in chosen], dtype=torch.float64)
        return Timeline(self.features[torch.tensor(chosen)], seconds)


def file_of(kind: str) -> str:
    """Return the name of the file that holds the features."""
    return f"features.{kind}"


def open(folder: str | Path) -> FeatureStore:
    """Open the features in a folder, as `vjepa extract` wrote them.

    Raises:
        FeaturesError: If it holds none, or they are not complete.
    """
    return FeatureStore(folder)
