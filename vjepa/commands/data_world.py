"""The verb `vjepa data world`."""

from __future__ import annotations

from pathlib import Path

from vjepa.commands.report import Report
from vjepa.worlds.world import SHEET, WorldConfig, generate


def world_command(
    *,
    out: Path,
    num_train: int = WorldConfig.num_train,
    num_val: int = WorldConfig.num_val,
    num_frames: int = WorldConfig.num_frames,
    size: int = WorldConfig.size,
    fps: float = WorldConfig.fps,
    noise: float = WorldConfig.noise,
    num_distractors: int = WorldConfig.num_distractors,
    seed: int = WorldConfig.seed,
    num_workers: int | None = None,
) -> Report:
    """Generate labelled videos of a small physical world, with manifests and a contact sheet.

    Args:
        out: Folder for train/, val/, train.csv, val.csv and sheet.png.
        num_train: Number of training clips.
        num_val: Number of validation clips; their patterns and backgrounds appear in no training clip.
        num_frames: Frames per clip, at least 8.
        size: Height and width in pixels; even, at least 32.
        fps: Frames per second.
        noise: Standard deviation of the noise in each frame, divided by the contrast of the main object.
        num_distractors: Number of small moving objects beside the main object, at least 1.
        seed: Random seed: the same settings give the same frames.
        num_workers: Number of processes that draw (default: one per core).
    """
    config = WorldConfig(
        num_train=num_train,
        num_val=num_val,
        num_frames=num_frames,
        size=size,
        fps=fps,
        noise=noise,
        num_distractors=num_distractors,
        seed=seed,
        num_workers=num_workers,
    )
    folder = generate(config, out)
    megabytes = sum(path.stat().st_size for path in folder.rglob("*.mp4")) / 1e6
    figures = {
        "train": str(folder / "train.csv"),
        "val": str(folder / "val.csv"),
        "sheet": str(folder / SHEET),
    }
    return Report(
        title="world", figures=figures | {"clips": num_train + num_val, "megabytes": round(megabytes, 1)}
    )
