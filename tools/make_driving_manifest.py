"""Writes data_manifests/driving/{train,val}.csv from the windows.csv of the donkeycar recordings.

python tools/make_driving_manifest.py WINDOWS_CSV [--val track2_t3]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

FPS = 20.0
OUT = Path(__file__).resolve().parents[1] / "data_manifests" / "driving"


def main() -> None:
    """Read the windows, write one manifest a split; a tub lies whole in one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("windows", type=Path, help="windows.csv: episode, tub, start, length, label")
    parser.add_argument("--val", default="track2_t3", help="the tub that is held out")
    arguments = parser.parse_args()
    with arguments.windows.open(newline="") as file:
        windows = list(csv.DictReader(file))
    OUT.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        with (OUT / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", "label", "start", "end", "group"])
            for window in windows:
                if (window["tub"] == arguments.val) == (split == "val"):
                    first, length = int(window["start"]), int(window["length"])
                    times = [f"{frame / FPS:.2f}" for frame in (first, first + length)]
                    writer.writerow(
                        [f"episodes/{window['episode']}.mp4", window["label"], *times, window["episode"]]
                    )


if __name__ == "__main__":
    main()
