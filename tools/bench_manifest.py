"""Seconds and memory to open a long manifest; to identify and to shuffle its rows.

    python tools/bench_manifest.py --rows 1000000

Writes CSV, Parquet and JSONL of the given length (label names and groups with it) to a temporary folder, with a
file behind every path, and opens each in a fresh process. Memory is the peak of that process less what it holds
after the imports.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FILES_A_FOLDER = 1_000
CLASSES = 400
OPEN = """
import json, sys, time
from pathlib import Path
import numpy as np
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.loading.order import epoch_order
from vjepa.data.manifests.identity import row_identities
if sys.argv[1].endswith("parquet"):
    import pyarrow.parquet
peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 2**10
before = peak()
times = [time.perf_counter()]
manifest = read_manifest(sys.argv[1])
times.append(time.perf_counter())
opened = peak()
identities = row_identities(manifest)
times.append(time.perf_counter())
identified = peak()
order = epoch_order(identities, 0, 0)
times.append(time.perf_counter())
rows = [manifest.rows[i] for i in order[:10000].tolist()]
times.append(time.perf_counter())
assert len(manifest.label_names) == %d
seconds = np.diff(times).round(3).tolist()
print(json.dumps([*seconds[:3], seconds[3] * 100, opened - before, identified - before]))
"""


def write_manifests(folder: Path, num_rows: int) -> list[Path]:
    """The three manifests; folders of files are links to one folder, so that a million paths cost little."""
    import pyarrow
    from pyarrow import parquet

    (folder / "files").mkdir()
    for i in range(FILES_A_FOLDER):
        (folder / "files" / f"video_{i:06d}_000010.mp4").touch()
    num_folders = -(-num_rows // FILES_A_FOLDER)
    for i in range(num_folders):
        (folder / f"part_{i:05d}").symlink_to("files")
    paths = [
        f"part_{i // FILES_A_FOLDER:05d}/video_{i % FILES_A_FOLDER:06d}_000010.mp4" for i in range(num_rows)
    ]
    labels = [f"doing the thing number {i % CLASSES}" for i in range(num_rows)]
    groups = [f"person_{i // 7}" for i in range(num_rows)]
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group"])
        writer.writerows(zip(paths, labels, groups, strict=True))
    with (folder / "rows.jsonl").open("w") as file:
        for path, label, group in zip(paths, labels, groups, strict=True):
            file.write(json.dumps({"path": path, "label": label, "group": group}) + "\n")
    parquet.write_table(
        pyarrow.table({"path": paths, "label": labels, "group": groups}), folder / "rows.parquet"
    )
    return [folder / f"rows.{kind}" for kind in ("csv", "parquet", "jsonl")]


def main() -> None:
    """Write, open, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3, help="the quickest counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("kind     open s  identities s  order s  row us  open MB  with identities MB")
        for path in write_manifests(Path(folder), options.rows):
            runs = []
            for _ in range(options.repeats):
                command = [sys.executable, "-c", OPEN % CLASSES, str(path)]
                runs.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
            seconds = [min(column) for column in zip(*runs, strict=True)]
            print(
                "{:<8} {:>6.2f}  {:>12.2f}  {:>7.2f}  {:>6.1f}  {:>7.0f}  {:>18.0f}".format(
                    path.suffix[1:], *seconds
                )
            )


if __name__ == "__main__":
    main()
