"""Files a second of `vjepa data check`, with no process of its own, one and two, on generated clips.

python tools/bench_check.py --num_files 400
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.videos import write_videos  # noqa: E402
from vjepa.data.audit import check  # noqa: E402
from vjepa.data.jobs.engine import Running, run_jobs  # noqa: E402


def main() -> None:
    """Generate, check, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_files", type=int, default=400)
    parser.add_argument("--num_frames", type=int, default=60)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=170)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = {"num_frames": given.num_frames, "height": given.height, "width": given.width}
        write_videos(Path(folder), given.num_files, fps=30.0, gop=60, **size)
        list(run_jobs(len, [""], num_processes=1))  # the server that the processes come from has then started
        seconds: dict[int, list[float]] = {0: [], 1: [], 2: []}
        for _ in range(given.rounds):
            for num_processes, taken in seconds.items():
                began = time.perf_counter()
                limit = 60.0 if num_processes else None
                report = check(folder, running=Running(num_processes=num_processes, timeout_seconds=limit))
                taken.append(time.perf_counter() - began)
                assert report.num_files == given.num_files and not report.findings
    print(f"{given.num_files} files of {given.num_frames} frames, {given.width} x {given.height}, h264")
    for num_processes, taken in seconds.items():
        rate = given.num_files / statistics.median(taken)
        print(f"{num_processes} processes: {rate:6.1f} files/s (median of {given.rounds})")


if __name__ == "__main__":
    main()
