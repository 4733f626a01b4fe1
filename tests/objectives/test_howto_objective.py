"""docs/howto/objective.md holds what it says: actions reach an objective from outside, which trains and resumes."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import vjepa
from tests.docs_blocks import blocks_of
from tests.recipes import tiny_recipe
from tests.videos import write_videos
from vjepa.checkpoints import save_folder
from vjepa.commands.app import main
from vjepa.models import ActionPredictor, VideoEncoder
from vjepa.training import PretrainModule

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "objective.md"
EVERY_TWO = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"every_n_train_steps": 2, "save_top_k": -1, "filename": "{step}"},
}


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    """The recipe of the how-to, over tiny videos with made-up states beside them, and a tiny encoder."""
    blocks = {block.language: block.text for block in blocks_of(HOWTO.read_text(encoding="utf-8"))}
    (tmp_path / "my_objective.py").write_text(blocks["python"])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_objective", raising=False)
    for path in write_videos(tmp_path / "clips", 4, num_frames=6, height=24, width=24):
        states = np.random.default_rng(path.stat().st_size).standard_normal((6, 2))
        np.savez(Path(path).with_suffix(".npz"), states=states)
    path = tiny_recipe(
        tmp_path, tmp_path / "clips", root=tmp_path / "runs", max_steps=4, callbacks=[EVERY_TWO]
    )
    settings, own = yaml.safe_load(path.read_text()), yaml.safe_load(blocks["yaml"])
    encoder = VideoEncoder(**settings["model"]["objective"]["init_args"]["encoder"]["init_args"])
    arguments = own["model"]["objective"]["init_args"]
    arguments["encoder"]["init_args"]["path"] = str(save_folder(tmp_path / "encoder", encoder))
    arguments["predictor"]["init_args"] |= {"embed_dim": 24, "depth": 1, "num_heads": 2}
    settings["model"]["objective"] = own["model"]["objective"]
    settings["data"]["reading"] = own["data"]["reading"]
    del settings["model"]["momentum"]
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.slow
def test_the_objective_of_the_howto_trains_resumes_and_is_exported(recipe, tmp_path, caplog):
    caplog.set_level("INFO")
    assert main(["fit", "--config", str(recipe)]) == 0
    assert caplog.text.count("ActionPrediction: no predictions, targets, masks to measure") == 1
    checkpoint = tmp_path / "runs" / "version_0" / "checkpoints" / "step=2.ckpt"
    assert main(["fit", "--config", str(recipe), "--ckpt_path", str(checkpoint)]) == 0
    exports = [tmp_path / "runs" / f"version_{i}" / "export" for i in (0, 1)]
    names = sorted(path.name for path in exports[0].iterdir())
    assert names == ["config.json", "encoder.safetensors", "predictor.safetensors"]
    for name in names:
        assert (exports[0] / name).read_bytes() == (exports[1] / name).read_bytes(), name
    frozen = (tmp_path / "encoder" / "encoder.safetensors").read_bytes()
    assert (exports[0] / "encoder.safetensors").read_bytes() == frozen
    for source in (exports[0], checkpoint):
        assert isinstance(vjepa.load_predictor(source), ActionPredictor)
        assert vjepa.load_encoder(source)(torch.zeros(1, 3, 4, 16, 16)).isfinite().all()
    with open(tmp_path / "runs" / "version_0" / "metrics.csv") as file:
        figures = {name for row in csv.DictReader(file) for name, value in row.items() if value}
    assert {"train/loss", "train/loss_forced", "train/loss_rollout", "train/grad_norm_predictor"} <= figures
    assert not figures & {"train/target_std", "train/loss_over_mean", "train/grad_norm_encoder"}


@pytest.mark.slow
def test_a_reader_that_is_missing_is_named(recipe, capsys):
    settings = yaml.safe_load(recipe.read_text())
    del settings["data"]["reading"]
    recipe.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(recipe)]) == 2
    assert "the clips come without 'actions'" in capsys.readouterr().err


def test_weights_that_would_not_be_trained_are_refused(recipe):
    from my_objective import ActionPrediction

    from vjepa.optim import Constant

    encoder = VideoEncoder(img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=1, num_heads=2)
    objective = ActionPrediction(
        encoder=encoder, predictor=lambda width: ActionPredictor(width, embed_dim=24, depth=1, num_heads=2)
    )
    assert list(objective.trained()) == ["predictor"] and not objective.train().target_encoder.training
    objective.bias = torch.nn.Parameter(torch.zeros(1))
    module = PretrainModule(objective=objective, lr=Constant(at=0.1), weight_decay=Constant(at=0.0))
    with pytest.raises(ValueError, match="Put them in a module, such as nn.ParameterDict"):
        module.configure_optimizers()
    del objective.bias
    objective.more = torch.nn.ParameterDict({"bias": torch.nn.Parameter(torch.zeros(1))})
    assert len(module.configure_optimizers().param_groups) == 4
