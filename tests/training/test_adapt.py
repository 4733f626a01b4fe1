"""Pre-training that goes on from a checkpoint, by the recipe as a user runs it."""

import json
from pathlib import Path

import pytest
import torch

import vjepa
from tests.recipes import tiny_recipe
from tests.videos import write_videos
from vjepa.checkpoints.strict import CheckpointError
from vjepa.cli import main
from vjepa.masks import RandomTubes
from vjepa.training import adapted_prediction

ROOT = Path(__file__).resolve().parents[2]
MASKS = [RandomTubes(ratio=0.5)]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of 3 steps, its clips beside it."""
    folder = tmp_path_factory.mktemp("adapt")
    write_videos(folder / "clips", 8, num_frames=12, height=40, width=40)
    recipe = tiny_recipe(folder, folder / "clips", root=folder / "runs", max_steps=3)
    assert main(["fit", "--config", str(recipe)]) == 0
    return folder / "runs" / "version_0"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["export", "checkpoints/last.ckpt"])
def test_all_three_networks_are_those_of_the_checkpoint(run, place):
    objective = adapted_prediction(checkpoint=str(run / place), masks=MASKS)
    pairs = (
        (objective.target_encoder, vjepa.load_encoder(run / place, which="target")),
        (objective.context_encoder, vjepa.load_encoder(run / place, which="context")),
        (objective.predictor, vjepa.load_predictor(run / place)),
    )
    for ours, theirs in pairs:
        held = theirs.state_dict()
        assert all(torch.equal(value, held[key]) for key, value in ours.state_dict().items())
    assert objective.context_encoder.training and objective.predictor.training


@pytest.mark.slow
def test_an_encoder_without_predictor_is_refused(run, tmp_path):
    vjepa.load_encoder(run / "export").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="predictor"):
        adapted_prediction(checkpoint=str(tmp_path), masks=MASKS)


@pytest.mark.slow
def test_one_command_goes_on_with_more_frames_and_larger_pictures(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["fit", "--config", str(ROOT / "configs" / "adapt.yaml"), "--data.train"]
    command += [str(run.parents[1] / "clips")]
    command += ["--model.objective.init_args.checkpoint", str(run / "export"), "--trainer.accelerator", "cpu"]
    # as docs/howto/recipes.md has it, for clips of a test's size
    command += ["--data.sampler.num_frames", "8", "--data.transform.size", "32", "--data.num_workers", "0"]
    command += ["--data.batch_size", "2", "--trainer.accumulate_grad_batches", "2"]
    assert main([*command, "--trainer.max_steps", "1"]) == 0
    folder = tmp_path / "runs" / "adapt"
    result = json.loads((folder / "version_0" / "result.json").read_text())
    assert result["clips_per_step"] == 4 and result["steps"] == 1
    assert result["peak_lr"] == pytest.approx(5.0e-5 * 0.01 * (4 / 64) ** 0.5)  # step 1 of a warm-up of 100
    changed = vjepa.load_encoder(folder / "version_0" / "export", which="context").state_dict()
    before = vjepa.load_encoder(run / "export", which="context").state_dict()
    assert changed.keys() == before.keys()
    assert max(float((changed[k] - before[k]).abs().max()) for k in before) > 0
    assert main([*command, "--trainer.max_steps", "4", "--ckpt_path", "last"]) == 0  # resumed
    assert main([*command, "--trainer.max_steps", "4", "--trainer.default_root_dir", "whole"]) == 0
    ends = (folder / "version_1", tmp_path / "whole" / "version_0")
    resumed, whole = (vjepa.load_encoder(end / "export").state_dict() for end in ends)
    assert {k: float((resumed[k] - whole[k]).abs().max()) for k in whole} == dict.fromkeys(whole, 0.0)


def test_a_recipe_without_its_checkpoint_says_so(capsys):
    assert main(["fit", "--config", str(ROOT / "configs" / "adapt.yaml"), "--data.train", "x"]) == 2
    assert "checkpoint" in capsys.readouterr().err
