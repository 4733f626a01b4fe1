"""`vjepa estimate`: a recipe weighed without data, without weights, without a run."""

import json
from pathlib import Path

import pytest
import torch

from tests.recipes import tiny_recipe
from tests.training.runs import tiny_module
from vjepa.commands.app import main
from vjepa.data import ClipSampler, TrainTransform, VideoDataModule
from vjepa.data.loading.mixture import MixturePart
from vjepa.training.clip_shapes import clip_shapes

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.")


def estimated(recipe: Path, out: Path, *more: str) -> dict:
    assert main(["estimate", "--config", str(recipe), "--out", str(out), *more]) == 0
    return json.loads((out / "result.json").read_text())


@pytest.fixture
def recipe(tmp_path):
    return tiny_recipe(tmp_path, "no_such_manifest.csv", root=tmp_path / "runs")


@pytest.mark.slow
def test_figures_are_those_of_the_networks(recipe, tmp_path, capsys):
    found = estimated(recipe, tmp_path / "out")
    module = tiny_module()  # other clips, and a predictor as wide as the encoder
    encoder = module.objective.context_encoder
    assert found["context_encoder_parameters"] == encoder.num_parameters == found["target_encoder_parameters"]
    assert found["trainable_parameters"] == encoder.num_parameters + found["predictor_parameters"]
    assert (found["tokens_per_clip"], found["context_tokens_mask0"], found["target_tokens_mask0"]) == (
        8,
        4,
        4,
    )
    assert found["clips_per_step"] == 4 and found["steps"] == 8
    assert found["forward_gflop_per_clip"] > 0 and found["backward_gflop_per_clip"] > 0
    kept, recomputed = found["plans"]
    assert (kept["strategy"], kept["blocks"], recomputed["blocks"]) == ("single", "kept", "recomputed")
    assert recomputed["tflop_per_step"] >= kept["tflop_per_step"]
    shown = capsys.readouterr().out
    assert "estimate for 1 x 80 GB, 312 TFLOP/s (A100 in bf16)" in shown and "batch_that_fits" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_what_is_given_decides(recipe, tmp_path):
    def plan(*more: str) -> dict:
        return estimated(recipe, tmp_path / "out", "--trainer.max_steps", "1000000000", *more)["plans"][0]

    alone = plan()
    faster = plan("--mfu", "0.7", "--peak_tflops", "1248")
    assert faster["days"] == pytest.approx(alone["days"] / 8, rel=0.01)
    more = plan("--trainer.accumulate_grad_batches", "2", "--memory", "0.002")
    assert more["days"] == pytest.approx(alone["days"] * 2, rel=0.01)
    assert 0 < more["batch_that_fits"] < alone["batch_that_fits"]
    clips = 3 * more["batch_that_fits"]
    crowded = plan("--memory", "0.002", "--clips_per_step", str(clips))
    assert (crowded["accumulate"], crowded["batch"]) == (3, more["batch_that_fits"])
    assert plan("--memory", "0.00001")["batch_that_fits"] == 0
    shared = plan("--gpus", "2")
    assert shared["strategy"] == "ddp" and shared["states_gb"] >= alone["states_gb"]
    assert shared["days"] == pytest.approx(alone["days"], rel=0.01)  # twice the clips on twice the devices


def test_flags_are_numbers_above_zero_and_precisions_that_are_known(recipe, capsys):
    assert main(["estimate", "--config", str(recipe), "--gpus", "0"]) == 2
    assert "--gpus is 0. Give a number above 0" in capsys.readouterr().err
    for flags, message in (
        (["--mfu", "35"], "Give a share of 1"),
        (["--clips_per_step", "0"], "Give a number above 0"),
        (["--trainer.accumulate_grad_batches", "0"], "Give 1 or more"),
    ):
        assert main(["estimate", "--config", str(recipe), *flags]) == 2
        assert message in capsys.readouterr().err
    assert main(["estimate", "--config", str(recipe), "--trainer.precision", "64-true"]) == 2
    assert "Set it to 32-true, bf16-mixed or 16-mixed" in capsys.readouterr().err


def test_parts_of_a_mixture_are_shapes_of_clips():
    data = VideoDataModule(
        parts=[
            MixturePart(source="a.csv", weight=2.0),
            MixturePart(source="b.csv", weight=1.0),
            MixturePart(source="c.csv", weight=1.0, sampler=ClipSampler(num_frames=1), batch_size=64),
        ],
        sampler=ClipSampler(num_frames=8),
        transform=TrainTransform(size=(32, 48)),
        batch_size=4,
    )
    shares = clip_shapes(data)
    assert list(shares.items()) == [((64, 3, 1, 32, 48), 0.25), ((4, 3, 8, 32, 48), 0.75)]


@pytest.mark.slow
def test_devices_of_the_recipe_decide_on_the_clips_of_a_step(recipe, tmp_path):
    for devices, times in (("3", 3), ("auto", 2), ("[0,1,2,3]", 4)):
        found = estimated(recipe, tmp_path / "out", "--gpus", "2", "--trainer.devices", devices)
        assert found["clips_per_step"] == 4 * times


@pytest.mark.slow
def test_a_second_config_changes_the_recipe(recipe, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("data: {batch_size: 3}\n")
    assert estimated(recipe, tmp_path / "out", "--config", str(overlay))["clips_per_step"] == 3


@pytest.mark.slow
def test_a_loss_of_covariances_is_estimated(tmp_path):
    penalty = [
        "--model.objective.init_args.penalties",
        '[{"class_path": "vjepa.objectives.VarianceCovariance"}]',
    ]
    overlay = ["--config", str(ROOT / "configs" / "objectives" / "sigreg.yaml")]
    found = estimated(ROOT / "configs" / "quickstart.yaml", tmp_path / "out", *overlay, *penalty)
    assert found["forward_gflop_per_clip"] > 0


@pytest.mark.slow
def test_a_recipe_is_estimated_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overlay = ["--config", str(ROOT / "configs" / "objectives" / "ijepa.yaml")]
    flags = [*overlay, "--gpus", "2", "--memory", "8"]
    found = estimated(ROOT / "configs" / "quickstart.yaml", tmp_path / "out", *flags)
    assert [(plan["strategy"], plan["blocks"]) for plan in found["plans"]] == [
        (strategy, blocks) for strategy in ("ddp", "fsdp2") for blocks in ("kept", "recomputed")
    ]
    assert all(plan["batch_that_fits"] > 0 and plan["days"] > 0 for plan in found["plans"])
    assert torch.empty(0).device.type == "cpu"  # the meta device was only for the networks
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
