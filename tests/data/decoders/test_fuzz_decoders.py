import csv
import subprocess
import sys
from pathlib import Path

import pytest

from vjepa.data.decoders import limited

TOOL = Path(__file__).parents[3] / "tools" / "fuzz_decoders.py"


@pytest.mark.slow
@pytest.mark.skipif(not limited.POSSIBLE, reason="a limit needs Linux")
def test_broken_files_are_frames_or_named_errors(tmp_path):
    out = tmp_path / "report.csv"
    command = [sys.executable, str(TOOL), "--files", "40", "--decoders", "pyav", "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and {row["outcome"] for row in rows} == {"read", "refused"}
    assert len({row["file"].split("_")[1] for row in rows}) == 5, "every way of breaking a file"
    assert all(row["reason"] for row in rows)
