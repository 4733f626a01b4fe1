"""Every recipe and overlay parses, and builds its model without memory for weights."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from vjepa.commands import fit
from vjepa.commands.demo import recipe_file
from vjepa.errors import SettingError, UsageError

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART, FOLDER = "configs/quickstart.yaml", "configs/folder.yaml"
OBJECTIVES = [f"configs/objectives/{name}.yaml" for name in ("dense", "ijepa", "pixels", "sigreg")]


def opening(path: Path) -> str:
    """The comment at the beginning of a file."""
    return "".join(re.match(r"(?:#.*\n)*", path.read_text(encoding="utf-8")).group())


def commands() -> list[tuple[str, ...]]:
    """The --config files of each recipe's command; a recipe or overlay ends its own command."""
    paths = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if "# Command:" in opening(path)]
    found = []
    for path in paths:
        command = next(line for line in opening(path).splitlines() if line.startswith("# Command:"))
        found.append(tuple(re.findall(r"--config (\S+)", command)))
        assert found[-1][-1] == str(path.relative_to(ROOT)), f"{path.name}: say how to run it"
    return found


# adapt.yaml begins with a checkpoint: tests/training/test_adapt.py runs it
COMMANDS = [files for files in commands() if files != ("configs/adapt.yaml",)]


def built(monkeypatch, *files: str | Path, more: tuple[str, ...] = ()) -> fit.FitCLI:
    """The command line of a fit with these recipe files, its model on the meta device and never run."""
    made = []
    monkeypatch.setattr(fit.FitCLI, "_run_subcommand", lambda cli, verb: made.append(cli))
    flags = [word for file in files for word in ("--config", str(ROOT / file))]
    with torch.device("meta"):
        fit.main("fit", [*flags, *more, "--trainer.accelerator", "cpu", "--trainer.devices", "1"])
    return made[0]


@pytest.mark.parametrize("files", COMMANDS + [(FOLDER, each) for each in OBJECTIVES], ids="+".join)
def test_recipe_builds_its_model_on_the_meta_device(files, monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(tmp_path)
    deep = files == (FOLDER, OBJECTIVES[0])
    more = ("--model.objective.init_args.encoder.init_args.levels", "[2, 5]") if deep else ()
    weights = list(built(monkeypatch, *files, more=more).model.parameters())
    assert weights and all(weight.is_meta for weight in weights)
    assert not caplog.records  # no setting of a recipe is dropped


@pytest.mark.parametrize("overlay", OBJECTIVES[1:])
def test_an_overlay_replaces_the_objective_and_the_schedule_of_any_recipe(overlay, monkeypatch, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "model:\n  lr: {class_path: vjepa.optim.Constant, init_args: {at: 1.0e-3}}\n"
        "  objective: {init_args: {loss_exp: smooth, frame_counts: [16]}}\n"  # of LatentPrediction alone
    )
    monkeypatch.chdir(tmp_path)
    model = built(monkeypatch, FOLDER, mine, overlay).model
    class_path = yaml.safe_load((ROOT / overlay).read_text("utf-8"))["model"]["objective"]["class_path"]
    assert type(model.objective).__name__ == class_path.split(".")[-1]
    assert model.objective.target_encoder.embed_dim == 192  # of folder.yaml
    assert hasattr(model.objective, "frame_counts") == ("ijepa" in overlay)


def test_every_recipe_and_overlay_says_how_to_run_it():
    parts = {"configs/masks", "configs/models"}
    paths = [path for path in (ROOT / "configs").rglob("*.yaml")]
    own = [path for path in paths if str(path.parent.relative_to(ROOT)) not in parts]
    assert len(own) == len(commands())
    for path in own:
        is_overlay = path.parent != ROOT / "configs"
        assert opening(path).startswith("# Overlay:") == is_overlay
        assert all(f"# {word}:" in opening(path) for word in ("Command", "Hardware", "Expected"))
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert is_overlay == (
            "weight_decay" not in settings.get("model", {})
        )  # an overlay is no whole recipe


def test_training_data_on_the_command_line_replace_the_world(monkeypatch, tmp_path):
    ijepa = "configs/objectives/ijepa.yaml"
    data = built(monkeypatch, QUICKSTART, ijepa, more=("--data.train", str(tmp_path))).datamodule
    assert data.world is None and data.sources["train"] == str(tmp_path)
    assert built(monkeypatch, QUICKSTART, ijepa).datamodule.world is not None
    with pytest.raises(SettingError, match="Give one of the two"):
        built(monkeypatch, QUICKSTART, more=("--data.train", str(tmp_path), "--data.world.seed", "1"))


def test_an_overlay_keeps_what_it_does_not_name(monkeypatch):
    first = built(monkeypatch, QUICKSTART).config.fit.as_dict()
    other = built(monkeypatch, QUICKSTART, "configs/objectives/pixels.yaml").config.fit.as_dict()
    before, after = first["model"]["objective"], other["model"]["objective"]
    assert after["class_path"] == "vjepa.objectives.PixelPrediction" and not after["init_args"]["normalize"]
    assert {k: after["init_args"][k] for k in ("encoder", "predictor", "masks")} == {
        k: before["init_args"][k] for k in ("encoder", "predictor", "masks")
    }
    assert other["model"]["momentum"] is None and other["model"]["lr"]["init_args"].pop("peak") == 0.004
    first["model"]["lr"]["init_args"].pop("peak")
    for kept in ("lr", "weight_decay", "lr_rule"):
        assert other["model"][kept] == first["model"][kept]
    assert other["data"] == first["data"] and other["report"] == first["report"]
    roots = [each["trainer"].pop("default_root_dir") for each in (first, other)]
    assert roots == ["runs/quickstart", "runs/pixels"] and other["trainer"] == first["trainer"]


def test_a_setting_that_the_new_class_does_not_take_is_dropped_with_a_warning(monkeypatch, tmp_path, caplog):
    back = tmp_path / "back.yaml"
    back.write_text(
        "model:\n  objective: {class_path: vjepa.objectives.LatentPrediction}\n"
        "  momentum: {class_path: vjepa.optim.Linear, init_args: {start: 0.99, end: 1.0}}\n"
    )
    pixels = "configs/objectives/pixels.yaml"
    objective = built(monkeypatch, QUICKSTART, pixels, back).config.fit.model.objective
    assert "normalize" not in objective.init_args
    (told,) = [record.message for record in caplog.records]
    assert (
        told
        == f"vjepa.objectives.LatentPrediction has no normalize: the value in {ROOT / pixels} is not used"
    )


def test_the_recipes_of_a_clone_are_found():
    assert recipe_file("quickstart.yaml").samefile(ROOT / QUICKSTART)
    with pytest.raises(UsageError, match="no recipe is called absent.yaml"):
        recipe_file("absent.yaml")
