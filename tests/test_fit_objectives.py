"""Every objective in a real fit: it runs from YAML, resumes bit for bit, and leaves encoders that open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import vjepa
from tests.recipes import tiny_recipe
from tests.videos import write_manifest
from vjepa.commands.app import main

pytestmark = pytest.mark.slow

SCHEDULE = {"class_path": "vjepa.optim.Linear", "init_args": {"start": 0.0, "end": 1.0}}
NO_AVERAGE = {"momentum": None}
OBJECTIVES = {  # the objective, other settings of the model
    "ijepa": (
        "LatentPrediction",
        {
            "encoder": {"init_args": {"num_frames": 1, "position": "sincos_wh"}},
            "predictor": {"init_args": {"position": "sincos_wh", "num_mask_tokens": 1}},
            "masks": [{"class_path": "vjepa.masks.ImageBlocks", "init_args": {"num_targets": 1}}],
            "loss_exp": "smooth",
        },
        {},
    ),
    "dense": (
        "DensePrediction",
        {
            "encoder": {"init_args": {"depth": 2, "levels": [0, 1]}},
            "predictor": {"init_args": {"num_levels": 2}},
            "context_weight": SCHEDULE,
        },
        {},
    ),
    "sigreg": (
        "RegularizedPrediction",
        {"penalties": [{"class_path": "vjepa.objectives.SigReg", "init_args": {"num_directions": 8}}]},
        NO_AVERAGE,
    ),
    "vicreg": (
        "RegularizedPrediction",
        {"penalties": [{"class_path": "vjepa.objectives.VarianceCovariance"}], "stop_gradient": True},
        NO_AVERAGE,
    ),
    "pixels": ("PixelPrediction", {}, NO_AVERAGE),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("clips"), 12, num_frames=6, height=24, width=24)


def recipe_of(name: str, folder: Path, clips: Path, **trainer: Any) -> list[str]:
    """The flags of the tiny recipe and of an overlay with the objective `name`."""
    folder.mkdir()
    recipe, overlay = tiny_recipe(folder, clips, root=folder / "runs", **trainer), folder / f"{name}.yaml"
    kind, arguments, model = OBJECTIVES[name]
    objective = {"class_path": f"vjepa.objectives.{kind}", "init_args": arguments}
    data = {"sampler": {"num_frames": 1 if name == "ijepa" else 4}}
    overlay.write_text(yaml.safe_dump({"model": {"objective": objective, **model}, "data": data}))
    return ["--config", str(recipe), "--config", str(overlay)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_fit_resumes_to_the_same_weights(name, clips, tmp_path):
    every = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every["init_args"] = {"every_n_train_steps": 4, "save_top_k": -1, "filename": "{step}"}
    whole = recipe_of(name, tmp_path / "whole", clips)
    stopped = recipe_of(name, tmp_path / "stopped", clips, callbacks=[every])
    assert main(["fit", *whole]) == 0
    assert main(["fit", *stopped]) == 0
    checkpoint = tmp_path / "stopped" / "runs" / "version_0" / "checkpoints" / "step=4.ckpt"
    assert main(["fit", *stopped, "--ckpt_path", str(checkpoint)]) == 0
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
    assert main(["fit", *recipe_of("pixels", tmp_path / "pixels", clips), *momentum]) == 2
    assert "keeps no moving average, got momentum" in capsys.readouterr().err
    ijepa = recipe_of("ijepa", tmp_path / "ijepa", clips)
    assert main(["fit", *ijepa, "--model.momentum", "null"]) == 2
    assert "got no momentum. Give one" in capsys.readouterr().err
    assert main(["fit", *ijepa, *momentum]) == 0
