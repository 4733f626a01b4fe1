"""Every recipe parses, alone or below its overlays, and builds its model without memory for weights."""

from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted([*CONFIGS.glob("objectives/*.yaml"), *CONFIGS.glob("data/*.yaml")])
OBJECTIVES = [path for path in OVERLAYS if path.parent.name == "objectives"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def command_of(path: Path) -> list[str]:
    """The recipe and overlays that the command of a file's header names."""
    lines = path.read_text(encoding="utf-8").splitlines()
    (command,) = (line for line in lines if line.startswith("# Command:"))
    words = command.split()
    assert words[2:4] == ["vjepa", "fit"], command
    return [after for word, after in zip(words, words[1:], strict=False) if word == "--config"]


def built_model(files: list[str], folder: Path, monkeypatch):
    """The module of `vjepa fit` with these files, on the meta device."""
    from vjepa.commands import fit

    built = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(fit.FitCLI, "_run_subcommand", lambda cli, verb: built.append(cli.model))
    flags = [word for file in files for word in ("--config", str(ROOT / file))]
    with torch.device("meta"):
        fit.main("fit", [*flags, "--trainer.accelerator", "cpu", "--trainer.devices", "1"])
    (model,) = built
    weights = list(model.parameters())
    assert weights and all(weight.is_meta for weight in weights)
    return model


# adapt.yaml begins with a checkpoint: tests/training/test_adapt.py runs it
@pytest.mark.parametrize("path", [r for r in [*RECIPES, *OVERLAYS] if r.name != "adapt.yaml"], ids=name_of)
def test_recipe_builds_its_model_on_the_meta_device(path, monkeypatch, tmp_path):
    built_model(command_of(path), tmp_path, monkeypatch)


@pytest.mark.parametrize("path", OBJECTIVES, ids=name_of)
def test_an_overlay_replaces_the_objective_of_any_recipe(path, monkeypatch, tmp_path):
    mine = tmp_path / "mine.yaml"  # arguments of LatentPrediction that no other objective has
    mine.write_text("model: {objective: {init_args: {loss_exp: smooth, frame_counts: [16]}}}\n")
    files = ["configs/folder.yaml", str(mine), name_of(path)]
    if path.stem == "dense":  # levels end with the encoder's last block
        levels = tmp_path / "levels.yaml"
        levels.write_text("model: {objective: {init_args: {encoder: {init_args: {levels: [2, 5]}}}}}\n")
        files.append(str(levels))
    model = built_model(files, tmp_path, monkeypatch)
    overlay = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["objective"]
    assert type(model.objective).__name__ == overlay["class_path"].split(".")[-1]
    assert model.objective.target_encoder.embed_dim == 192  # of folder.yaml
    assert hasattr(model.objective, "frame_counts") == (path.stem == "ijepa")


@pytest.mark.parametrize("path", [*RECIPES, *OVERLAYS], ids=name_of)
def test_recipe_opens_with_its_command(path):
    assert command_of(path)[-1] == name_of(path)


@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_an_overlay_is_short_and_names_its_folder_of_runs(path):
    text = path.read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if not line.startswith("#")]) < 20
    assert yaml.safe_load(text)["trainer"]["default_root_dir"] == f"runs/{path.stem}"
