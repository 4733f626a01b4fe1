import copy
import json
from pathlib import Path

import pytest
import torch

import vjepa
from tests.checkpoints.given import random_
from tests.recipes import tiny_recipe
from tests.videos import write_videos
from vjepa.checkpoints import CheckpointError, save_meta
from vjepa.commands.app import main
from vjepa.masks import RandomTubes
from vjepa.types import ClipBatch

ADAPT = Path(__file__).parents[2] / "configs" / "adapt.yaml"
MASKS = [RandomTubes(ratio=0.5)]
WIDTH = 192  # published, so that a file of Meta's tells the heads


@pytest.fixture
def networks():
    encoder = vjepa.VideoEncoder(
        img_size=32, num_frames=4, embed_dim=WIDTH, depth=1, num_heads=3, position="rope"
    )
    target, context = (random_(copy.deepcopy(encoder), seed) for seed in (1, 2))
    predictor = random_(vjepa.Predictor(WIDTH, depth=1, position="rope"))
    return {"encoder": target, "context_encoder": context, "predictor": predictor}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_every_network_goes_on_from_its_own(networks, tmp_path):
    path = save_meta(tmp_path / "meta.pt", **networks)
    objective = vjepa.load_objective(path, masks=MASKS)
    assert same(objective.context_encoder, networks["context_encoder"])
    assert same(objective.target_encoder, networks["encoder"])
    assert same(objective.predictor, networks["predictor"])
    assert not any(p.requires_grad for p in objective.target_encoder.parameters())
    assert all(p.requires_grad for p in objective.context_encoder.parameters())
    assert objective.context_encoder.training and objective.predictor.training


def test_one_encoder_in_half_precision_is_both_in_fp32(networks, tmp_path):
    networks.pop("context_encoder")
    half = {name: network.half() for name, network in networks.items()}
    objective = vjepa.load_objective(save_meta(tmp_path / "meta.pt", **half), masks=MASKS)
    assert same(objective.context_encoder, objective.target_encoder)
    assert {p.dtype for p in objective.parameters()} == {torch.float32}


def test_clips_may_be_longer_and_larger(networks, tmp_path):
    objective = vjepa.load_objective(save_meta(tmp_path / "meta.pt", **networks), masks=MASKS)
    none = torch.full((2,), -1)
    batch = ClipBatch(video=torch.randn(2, 3, 8, 48, 48), label=none, index=torch.arange(2))
    assert objective(batch, torch.Generator().manual_seed(0)).loss.isfinite()


def test_a_checkpoint_without_predictor_is_refused(networks, tmp_path):
    path = save_meta(tmp_path / "meta.pt", encoder=networks["encoder"])
    with pytest.raises(CheckpointError, match="predictor"):
        vjepa.load_objective(path, masks=MASKS)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of 3 steps, its clips beside it."""
    folder = tmp_path_factory.mktemp("adapt")
    write_videos(folder / "clips", 8, num_frames=12, height=40, width=40)
    recipe = tiny_recipe(folder, folder / "clips", root=folder / "runs", max_steps=3)
    assert main(["fit", "--config", str(recipe)]) == 0
    return folder / "runs" / "version_0"


@pytest.mark.slow
def test_one_command_goes_on_with_more_frames_and_larger_pictures(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["fit", "--config", str(ADAPT), "--data.train"]
    command += [str(run.parents[1] / "clips")]
    command += ["--model.objective.init_args.path", str(run / "export"), "--trainer.accelerator", "cpu"]
    # as docs/howto/checkpoints.md has it, for clips of a test's size
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


@pytest.mark.slow
def test_the_recipe_without_a_checkpoint_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_videos(tmp_path / "clips", 1, num_frames=6, height=32, width=32)
    assert main(["fit", "--config", str(ADAPT), "--data.train", "clips"]) == 2
    assert "missing --model.objective.init_args.path: give it" in capsys.readouterr().err
