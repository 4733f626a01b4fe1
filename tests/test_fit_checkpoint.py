"""A checkpoint gives `fit` and `validate` weights and the state of a run, never classes or settings."""

from pathlib import Path

import pytest
import torch

from tests.recipes import tiny_recipe
from tests.videos import write_videos
from vjepa.commands.app import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[Path, Path]:
    """Return a recipe and the checkpoint of a run of one step."""
    folder = tmp_path_factory.mktemp("stopped")
    write_videos(folder / "clips", 4, num_frames=6, height=24, width=24)
    recipe = tiny_recipe(folder, folder / "clips", root=folder / "runs", max_steps=1)
    assert main(["fit", "--config", str(recipe)]) == 0
    return recipe, folder / "runs" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("verb", "named"),
    [
        ("validate", {"_class_path": "planted.Thing"}),
        ("validate", "nonsense"),
        ("fit", {"objective": {"class_path": "planted.Thing"}}),
        ("fit", {"lr": {"class_path": "vjepa.optim.Constant", "init_args": {"at": 9.0}}, "seed": 77}),
    ],
)
def test_hyper_parameters_are_not_read(stopped, tmp_path, monkeypatch, verb, named):
    recipe, last = stopped
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nThing = dict\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    content = torch.load(last, weights_only=True)
    torch.save(content | {"hyper_parameters": named}, tmp_path / "given.ckpt")
    flags = ["--data.val", str(recipe.parent / "clips"), "--trainer.max_steps", "2"]
    flags += ["--trainer.default_root_dir", str(tmp_path / "runs")]
    command = [verb, "--config", str(recipe), "--ckpt_path", str(tmp_path / "given.ckpt"), *flags]
    assert main(command) == 0
    assert not (tmp_path / "ran").exists()
    if verb == "fit":
        logged = (tmp_path / "runs" / "version_0" / "config.yaml").read_text()
        assert "planted" not in logged and "at: 9.0" not in logged and "seed: 77" not in logged


def test_settings_of_the_optimiser_are_the_recipes(stopped, tmp_path):
    recipe, last = stopped
    content = torch.load(last, weights_only=True)
    for group in content["optimizer_states"][0]["param_groups"]:
        group |= {"betas": (0.0, 0.0), "eps": 1.0, "maximize": True, "decay": True}
    torch.save(content, tmp_path / "given.ckpt")
    flags = ["--trainer.max_steps", "2", "--trainer.default_root_dir", str(tmp_path / "runs")]
    assert main(["fit", "--config", str(recipe), "--ckpt_path", str(tmp_path / "given.ckpt"), *flags]) == 0
    resumed = torch.load(tmp_path / "runs" / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
    groups = resumed["optimizer_states"][0]["param_groups"]
    assert all(group["betas"] == (0.9, 0.999) and group["eps"] == 1e-8 for group in groups)
    assert not any(group["maximize"] for group in groups)
    assert [group["decay"] for group in groups] == [True, True, False, False]
