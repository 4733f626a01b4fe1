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


# adapt.yaml begins with a checkpoint: tests/training/test_adapt.py runs it
@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.name != "adapt.yaml"], ids=lambda path: path.name)
def test_recipe_builds_its_model_on_the_meta_device(recipe, monkeypatch, tmp_path):
    from vjepa.commands import fit

    if recipe.name == "adapt.yaml":
        pytest.skip("its networks are those of a checkpoint: tests/training/test_adapt.py")

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


COMPARED = ("quickstart", "dense", "ijepa", "sigreg", "vicreg", "pixels")


def test_recipes_of_the_objectives_differ_in_little_else():
    texts = [(ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8") for name in COMPARED]
    first, *others = (yaml.safe_load(text) for text in texts)
    for name, other in zip(COMPARED[1:], others, strict=True):
        networks = [
            recipe["model"]["objective"]["init_args"]["encoder"]["init_args"] for recipe in (first, other)
        ]
        own = (
            {"levels"}
            if name == "dense"
            else {"patch_size", "num_frames", "tubelet_size"}
            if name == "ijepa"
            else set()
        )
        assert {k for k in {**networks[0], **networks[1]} if networks[0].get(k) != networks[1].get(k)} == own
        for recipe in (first, other):
            recipe["data"]["sampler"]["num_frames"] = 16  # I-JEPA's are images
        assert other["data"] == first["data"] and other["report"] == first["report"]
        assert other["model"]["weight_decay"] == first["model"]["weight_decay"]
        free = {"default_root_dir"} | (
            {"max_steps", "val_check_interval"} if name in ("sigreg", "ijepa") else set()
        )
        trainers = [{k: v for k, v in r["trainer"].items() if k not in free} for r in (first, other)]
        assert trainers[0] == trainers[1]
