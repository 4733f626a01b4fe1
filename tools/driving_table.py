"""Steering of driving clips, split by tub: probes of an encoder and of its random twin, beside plain pixels.

python tools/driving_table.py --encoder DIR --train MANIFEST --val MANIFEST --root MEDIA --out DIR [--seeds 3]

Rows: attentive, linear and k-NN probe, of the encoder and at random init; then the pixels of one frame, of frame
differences and random convolutions, by tools/pixel_baselines.py. Seeds draw the held-out fifth, the first weights and
the random twin. Tokens are kept in OUT/cache: a second run only trains probes.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from pixel_baselines import accuracy, frame_differences, one_frame, random_convolutions, read

from vjepa.commands.flags import grouped
from vjepa.commands.probe import probe
from vjepa.commands.report import write_result
from vjepa.probes import ProbeKind, ProbeSettings

KINDS: tuple[ProbeKind, ...] = ("attentive", "linear", "knn")
GRID = ProbeSettings(lr=(5e-3, 3e-3, 1e-3, 3e-4, 1e-4), weight_decay=(0.01, 0.1, 0.4, 0.8))


def probed(given: argparse.Namespace) -> dict[str, list[float]]:
    """Top-1 by row, one a seed."""
    rows: dict[str, list[float]] = {}
    for seed in range(given.seeds):
        for kind in KINDS:
            flags = {
                "encoder": given.encoder,
                "train": given.train,
                "val": given.val,
                "root": given.root,
                "label": given.label,
                "fps": given.fps,
                "out": given.out / f"{kind}_{seed}",
                "probe": kind,
                "grid": GRID,
                "seed": seed,
                "num_workers": given.num_workers,
                "cache": given.out / "cache",
            }
            figures = probe(**grouped(probe, flags)).figures
            rows.setdefault(f"pre-trained, {kind}", []).append(figures["top1"])
            rows.setdefault(f"random init, {kind}", []).append(figures["random_init_top1"])
            rows["chance (commonest class)"] = [figures["chance"]]
            print(
                f"seed {seed}, {kind}: {figures['top1']:.3f}, random init {figures['random_init_top1']:.3f}"
            )
    return rows


def pixels(given: argparse.Namespace) -> dict[str, list[float]]:
    """Top-1 of plain pixels by row, one a seed."""
    train, names = read(given.train, given)
    val, _ = read(given.val, given, names)
    return {
        f"pixels, {features.__name__.replace('_', ' ')}": [
            float(accuracy(train, val, features(train.frames, s), features(val.frames, s), s)[0])
            for s in range(given.seeds)
        ]
        for features in (one_frame, frame_differences, random_convolutions)
    }


def main() -> None:
    """Print the table and write OUT/result.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", required=True, help="folder or .ckpt")
    parser.add_argument("--train", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--root", help="folder that relative paths start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--label", default="label", help="column of the manifests")
    parser.add_argument("--fps", type=float, help="of pre-training; default: every frame")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num_workers", type=int, default=2)
    given = parser.parse_args()
    rows = probed(given) | pixels(given)
    print(f"\n| steering | top-1, mean ± deviation of {given.seeds} seeds | each |\n|---|---|---|")
    for name, each in rows.items():
        shares = [100 * share for share in each]
        spread = statistics.stdev(shares) if len(shares) > 1 else 0.0
        listed = ", ".join(f"{share:.1f}" for share in shares)
        print(f"| {name} | {statistics.mean(shares):.1f} ± {spread:.1f} | {listed} |")
    write_result(given.out, figures={"rows": rows}, settings=vars(given), seed=None)


if __name__ == "__main__":
    main()
