"""Every objective in a real fit: it runs from YAML, resumes bit for bit, and leaves encoders that open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

import vjepa
from tests.recipes import tiny_recipe
from tests.videos import write_manifest
from vjepa.commands.app import main

pytestmark = pytest.mark.slow

SCHEDULE = {"class_path": "vjepa.optim.Linear", "init_args": {"start": 0.0, "end": 1.0}}
OBJECTIVES = {
    "ijepa": {
        "class_path": "vjepa.objectives.LatentPrediction",
        "init_args": {
            "encoder": {"num_frames": 1, "position": "sincos_wh"},
            "predictor": {"position": "sincos_wh", "num_mask_tokens": 1},
            "masks": [{"class_path": "vjepa.masks.ImageBlocks", "init_args": {"num_targets": 1}}],
            "loss_exp": "smooth",
        },
    },
    "dense": {
        "class_path": "vjepa.objectives.DensePrediction",
        "init_args": {
            "encoder": {"depth": 2, "levels": [0, 1]},
            "predictor": {"num_levels": 2},
            "context_weight": SCHEDULE,
        },
    },
    "sigreg": {
        "class_path": "vjepa.objectives.RegularizedPrediction",
        "init_args": {
            "penalties": [{"class_path": "vjepa.objectives.SigReg", "init_args": {"num_directions": 8}}]
        },
    },
    "vicreg": {
        "class_path": "vjepa.objectives.RegularizedPrediction",
        "init_args": {
            "penalties": [{"class_path": "vjepa.objectives.VarianceCovariance"}],
            "stop_gradient": True,
        },
    },
    "pixels": {"class_path": "vjepa.objectives.PixelPrediction", "init_args": {}},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("clips"), 12, num_frames=6, height=24, width=24)


def recipe_of(name: str, folder: Path, clips: Path) -> Path:
    """The tiny recipe, with the objective `name` in place of its own."""
    folder.mkdir()
    path = tiny_recipe(folder, clips, root=folder / "runs")
    settings = yaml.safe_load(path.read_text())
    chosen = OBJECTIVES[name]["init_args"]
    arguments = settings["model"]["objective"]["init_args"]
    for key, value in chosen.items():
        if key in ("encoder", "predictor"):
            arguments[key]["init_args"] |= value
        else:
            arguments[key] = value
    settings["model"]["objective"]["class_path"] = OBJECTIVES[name]["class_path"]
    if name not in ("ijepa", "dense"):
        del settings["model"]["momentum"]
    settings["data"]["sampler"]["num_frames"] = 1 if name == "ijepa" else 4
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_fit_resumes_to_the_same_weights(name, clips, tmp_path):
    whole, stopped = (recipe_of(name, tmp_path / part, clips) for part in ("whole", "stopped"))
    every = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every["init_args"] = {"every_n_train_steps": 4, "save_top_k": -1, "filename": "{step}"}
    settings = yaml.safe_load(stopped.read_text())
    settings["trainer"]["callbacks"] = [every]
    stopped.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(whole)]) == 0
    assert main(["fit", "--config", str(stopped)]) == 0
    checkpoint = tmp_path / "stopped" / "runs" / "version_0" / "checkpoints" / "step=4.ckpt"
    assert main(["fit", "--config", str(stopped), "--ckpt_path", str(checkpoint)]) == 0
    runs = [tmp_path / "whole" / "runs" / "version_0", tmp_path / "stopped" / "runs" / "version_1"]
    for part in ("encoder", "context_encoder", "predictor"):
        first, second = ((run / "export" / f"{part}.safetensors").read_bytes() for run in runs)
        assert first == second, part

    video = torch.randn(1, 3, 1 if name == "ijepa" else 4, 16, 16)
    encoder = vjepa.load_encoder(runs[1] / "export")
    for which in ("target", "context"):
        given = vjepa.load_encoder(runs[1] / "export", which=which)(video)
        assert given.isfinite().all()
        assert torch.equal(given, encoder(video)) == (which == "target" or name not in ("ijepa", "dense"))
    vjepa.load_predictor(runs[1] / "export")


def test_a_momentum_for_nothing_and_none_where_it_is_needed(clips, tmp_path, capsys):
    momentum = ["--model.momentum", "vjepa.optim.Constant", "--model.momentum.at", "0.9"]
    pixels = recipe_of("pixels", tmp_path / "pixels", clips)
    assert main(["fit", "--config", str(pixels), *momentum]) == 2
    assert "keeps no moving average, got momentum" in capsys.readouterr().err
    ijepa = recipe_of("ijepa", tmp_path / "ijepa", clips)
    settings = yaml.safe_load(ijepa.read_text())
    del settings["model"]["momentum"]
    ijepa.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(ijepa)]) == 2
    assert "got no momentum. Give one" in capsys.readouterr().err
    assert main(["fit", "--config", str(ijepa), *momentum]) == 0
