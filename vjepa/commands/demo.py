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
        out: Folder for all results.
        num_steps: Optimiser steps of pre-training.
        num_clips: Training clips to generate.
        seed: Seed of data, training and probes.
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
    return Report(title="demo", rows=report.rows, figures=figures, closing=report.closing)


def recipe_file(name: str) -> Path:
    """Return the path of a recipe in `configs/` of the installed package, or of the clone with this file.

    Raises:
        UsageError: If no recipe has that name.
    """
    package = Path(str(files("vjepa"))).resolve()
    for path in (package / "configs" / name, package.parent / "configs" / name):
        if path.is_file():
            return path
    raise UsageError(f"no recipe is called {name}. Give a file: `vjepa fit --config FILE`.")
