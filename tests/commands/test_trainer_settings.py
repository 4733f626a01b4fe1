"""Settings that a trainer or this machine cannot have: one line and exit code 2, before a folder is made."""

from pathlib import Path

import pytest
import torch

from tests.recipes import tiny_recipe
from tests.videos import write_videos
from vjepa.commands.app import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    write_videos(folder / "clips", 4, num_frames=6, height=24, width=24)
    return tiny_recipe(folder, folder / "clips", root=folder / "runs", max_steps=1)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--trainer.max_steps", "0"], "--trainer.max_steps 0: there is nothing to train"),
        (["--trainer.max_epochs", "0"], "--trainer.max_epochs 0: there is nothing to train"),
        (["--trainer.limit_train_batches", "0"], "limit_train_batches 0: there is nothing to train"),
        (["--trainer.accelerator", "mps"], "Give cpu, or auto for the best that there is"),
        (
            ["--trainer.accelerator", "gpuu"],
            "--trainer.accelerator gpuu is not known. Give one of auto, cpu, cuda",
        ),
        (["--trainer.accelerator", "tpu"], "the trainer cannot be built: Requirement"),
        (["--trainer.strategy", "ddpp"], "You selected an invalid strategy name"),
        (["--trainer.devices", "0"], "`Trainer(devices='0')` value is not a valid input"),
        (["--trainer.devices", "x"], "--trainer.devices x"),
        (["--trainer.num_nodes", "0"], "`num_nodes` must be a positive integer"),
        (["--trainer.max_steps", "-5"], "`max_steps` must be a non-negative integer or -1"),
        (["--trainer.log_every_n_steps", "0"], "--trainer.log_every_n_steps 0: give 1 or more"),
        (["--trainer.barebones", "true"], "Omit it"),
        (["--trainer.overfit_batches", "0.1"], "a setting of the trainer: You requested to check 0.1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(recipe, capsys, flags, told):
    assert main(["fit", "--config", str(recipe), *flags]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("vjepa: error: ") and told in lines[-1]
    assert not [path for path in (recipe.parent / "runs").glob("*/checkpoints/*")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_a_gpu_that_is_not_there(recipe, capsys, verb):
    assert main([verb, "--config", str(recipe), "--trainer.accelerator", "gpu"]) == 2
    assert "--trainer.accelerator gpu: PyTorch finds no such device" in capsys.readouterr().err


def test_estimate_needs_no_device(recipe):
    assert main(["estimate", "--config", str(recipe), "--trainer.accelerator", "gpu"]) == 0
