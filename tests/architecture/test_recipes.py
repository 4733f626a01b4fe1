"""Every recipe parses, and builds its model without memory for weights."""

from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [
    path
    for path in sorted((ROOT / "configs").glob("*.yaml"))
    if {"trainer", "model", "data"} <= set(yaml.safe_load(path.read_text(encoding="utf-8")) or ())
]


@pytest.fixture(params=RECIPES, ids=lambda path: path.name)
def recipe(request) -> Path:
    return request.param


def test_recipe_builds_its_model_on_the_meta_device(recipe, monkeypatch, tmp_path):
    from vjepa import fit

    built = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit.FitCLI, "_run_subcommand", lambda cli, verb: built.append(cli.model))
    with torch.device("meta"):
        fit.main("fit", ["--config", str(recipe), "--trainer.accelerator", "cpu", "--trainer.devices", "1"])
    assert len(built) == 1
    weights = list(built[0].parameters())
    assert weights and all(weight.is_meta for weight in weights)


def test_recipe_opens_with_its_command(recipe):
    first = recipe.read_text(encoding="utf-8").splitlines()
    comment = "\n".join(line for line in first[:12] if line.startswith("#"))
    assert f"vjepa fit --config configs/{recipe.name}" in comment, f"{recipe.name}: say how to run it"
