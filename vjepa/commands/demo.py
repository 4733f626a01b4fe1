"""The verb `demo`: an offline tour of the toolkit."""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path

from vjepa.commands import fit
from vjepa.commands.extract import extract
from vjepa.commands.report import Report
from vjepa.errors import UsageError

log = logging.getLogger(__name__)


def demo(
    *, out: Path = Path("vjepa_demo"), num_steps: int = 400, num_clips: int = 1000, seed: int = 0
) -> Report:
    """Generate videos, pre-train on them, probe against random init, extract features, draw a picture.

    Args:
        out: Folder for everything.
        num_steps: Optimiser steps of pre-training.
        num_clips: Training clips to generate.
        seed: Of everything.
    """
    recipe = recipe_file("quickstart.yaml")
    log.info("1/2  generate, pre-train, probe: vjepa fit --config %s", recipe.name)
    settings = {
        "config": recipe,
        "seed_everything": seed,
        "trainer.default_root_dir": out / "runs",
        "trainer.max_steps": num_steps,
        "trainer.val_check_interval": max(1, min(num_steps, num_clips // 64)),
        "data.world.root": out / "worlds",
        "data.world.num_train": num_clips,
        "data.world.num_val": max(num_clips // 5, 100),
    }
    report = fit.main("fit", [f"--{key}={value}" for key, value in settings.items()])
    encoder = Path(report.figures["log_dir"]) / "export"
    world = next((out / "worlds").glob("*/val.csv"))
    log.info("2/2  extract: vjepa extract --encoder %s --data %s --out %s", encoder, world, out / "features")
    extract(encoder=str(encoder), data=str(world), out=out / "features", overwrite=True)
    figures = report.figures | {"encoder": str(encoder), "features": str(out / "features")}
    return Report(title="demo", rows=report.rows, figures=figures)


def recipe_file(name: str) -> Path:
    """A recipe of `configs/`: of the installed package, or of the clone that this file is in.

    Raises:
        UsageError: If there is none of that name.
    """
    installed = Path(str(files("vjepa"))) / "configs" / name
    clone = Path(__file__).resolve().parents[2] / "configs" / name
    for path in (installed, clone):
        if path.is_file():
            return path
    raise UsageError(f"no recipe is called {name}. Give a file with `vjepa fit --config FILE`.")
