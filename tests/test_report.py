import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from vjepa.commands.report import Report, as_report, versions, write_result
from vjepa.files import write_bytes


@dataclass(frozen=True)
class Figures:
    top1: float


def test_result_holds_figures_settings_versions_and_seed(tmp_path):
    figures = {
        "top1": torch.tensor(0.5),
        "confusion": np.eye(2, dtype=int),
        "loss": math.nan,
        "from": tmp_path,
    }
    path = write_result(tmp_path / "new", figures=figures, settings={"lr": 0.1, "out": Path("x")}, seed=3)
    assert path == tmp_path / "new" / "result.json"
    content = json.loads(path.read_text())
    assert content.pop("versions")["torch"] == torch.__version__.split("+")[0]
    assert content == {
        "top1": 0.5,
        "confusion": [[1, 0], [0, 1]],
        "loss": None,  # NaN is no JSON
        "from": str(tmp_path),
        "settings": {"lr": 0.1, "out": "x"},
        "seed": 3,
    }


def test_a_write_that_fails_leaves_the_old_result(tmp_path):
    write_result(tmp_path, figures={"top1": 1}, settings={}, seed=None)

    class Unwritable(list):
        def __iter__(self):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_result(tmp_path, figures={"top1": Unwritable()}, settings={}, seed=None)
    assert json.loads((tmp_path / "result.json").read_text())["top1"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("outcome", [{"top1": 0.5}, Figures(top1=0.5), Report(figures={"top1": 0.5})])
def test_figures_of_any_outcome(outcome):
    assert as_report(outcome).figures == {"top1": 0.5}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_bytes(b"old", path)
    monkeypatch.setattr(
        Path, "write_bytes", lambda _, content: os.write(os.open("/dev/full", os.O_WRONLY), content)
    )
    with pytest.raises(OSError, match="No space left"):
        write_bytes(b"new", path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_no_outcome_is_an_empty_report_and_other_things_are_a_bug():
    assert as_report(None) == Report()
    with pytest.raises(AssertionError, match="a command returned int"):
        as_report(3)


def test_versions_name_what_decides_about_numbers():
    assert {"python", "torch", "vjepa-toolkit"} <= set(versions())
