"""Two ranks that share a batch train as one rank with all of it: DDP, and FSDP2 stopped and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.recipes import tiny_recipe
from tests.training.ranks import module
from tests.videos import write_videos
from vjepa.checkpoints import load_encoder
from vjepa.commands.app import main

pytestmark = pytest.mark.slow
EPOCHS, STEPS = 10, 50
TWO_RANKS = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def run(strategy: str, ranks: int, epochs: int, folder: Path, *checkpoint: str) -> list[dict]:
    """What each rank wrote."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.training.ranks", strategy, str(ranks), str(epochs), str(folder)]
    done = subprocess.run(
        [*command, *checkpoint],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


def mean_losses(results: list[dict]) -> np.ndarray:
    return np.mean([result["losses"] for result in results], axis=0)


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory) -> np.ndarray:
    return mean_losses(run("auto", 1, EPOCHS, tmp_path_factory.mktemp("one") / "run"))


def test_ddp_has_the_losses_of_one_rank(one_rank, tmp_path):
    losses = mean_losses(run("ddp_find_unused_parameters_true", 2, EPOCHS, tmp_path / "ddp"))
    assert len(losses) == STEPS and one_rank[0] - one_rank[-1] > 0.01  # it learned
    np.testing.assert_allclose(losses, one_rank, atol=1e-5, rtol=0)


def test_fsdp2_stopped_and_resumed_has_the_losses_of_one_rank(one_rank, tmp_path):
    first = run("fsdp2", 2, EPOCHS // 2, tmp_path / "first")
    checkpoint = tmp_path / "first" / "last.ckpt"
    rest = run("fsdp2", 2, EPOCHS, tmp_path / "rest", str(checkpoint))
    losses = np.concatenate([mean_losses(first), mean_losses(rest)])
    np.testing.assert_allclose(losses, one_rank, atol=1e-5, rtol=0)
    total = sum(p.numel() for p in module().parameters())
    assert all(0.4 * total < result["held"] < 0.6 * total for result in rest)  # each its share
    assert checkpoint.is_file()  # one file, of whole weights
    video = torch.zeros(1, 3, 4, 16, 32)
    assert load_encoder(checkpoint)(video).shape == (1, 16, 24)
    going_on = mean_losses(run("auto", 1, EPOCHS, tmp_path / "alone", str(checkpoint)))
    np.testing.assert_allclose(going_on, one_rank[STEPS // 2 :], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory) -> Path:
    """A recipe whose masks are the same on all ranks, its clips, and a checkpoint."""
    folder = tmp_path_factory.mktemp("held_out")
    write_videos(folder / "clips", 4, num_frames=6, height=24, width=24)
    recipe = tiny_recipe(folder, folder / "clips", root=folder / "runs", max_steps=1)
    causal = yaml.safe_load(recipe.read_text())
    masks = [{"class_path": "vjepa.masks.Causal", "init_args": {"past": [0.5, 0.5]}}]
    causal["model"]["objective"]["init_args"]["masks"] = masks
    causal["data"]["batch_size"] = 1
    recipe.write_text(yaml.safe_dump(causal))
    assert main(["fit", "--config", str(recipe)]) == 0
    return recipe


@pytest.mark.parametrize("videos", [("0", "1", "2"), ("0", "broken")])
def test_validation_on_two_ranks_is_that_of_one(held_out, tmp_path, capsys, videos):
    clips = held_out.parent / "clips"
    (clips / "clip_00broken.mp4").write_bytes(b"")
    manifest = tmp_path / "val.csv"
    rows = [f"{clips}/clip_00{video}.mp4" for video in videos]
    manifest.write_text("\n".join(["path", *rows]) + "\n")
    words = ["--config", str(held_out), "--data.val", str(manifest)]
    validate = ["validate", *words, "--ckpt_path", "last"]
    capsys.readouterr()
    assert main(validate) == 0
    one = figures(capsys.readouterr().out)
    done = vjepa_of([*validate, *TWO_RANKS])
    assert figures(done.stdout)["val/loss"] == pytest.approx(one["val/loss"], abs=2e-4)


def test_a_fit_says_that_a_rank_has_no_clip_to_validate_on(held_out, tmp_path):
    val = str(held_out.parent / "clips" / "clip_000.mp4")
    done = vjepa_of(
        ["fit", "--config", str(held_out), "--data.val", val, *TWO_RANKS]
        + ["--trainer.val_check_interval", "1", "--trainer.default_root_dir", str(tmp_path)]
    )
    assert "clips to evaluate on 2 devices: 1" in done.stderr


def figures(shown: str) -> dict[str, float]:
    lines = (line.split(": ") for line in shown.splitlines() if line.startswith("val/"))
    return {name: float(value) for name, value in lines}


def vjepa_of(words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vjepa", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_a_fit_on_two_sharded_ranks_leaves_whole_networks_and_goes_on(tmp_path):
    for label in "ab":
        write_videos(tmp_path / "clips" / label, 6, num_frames=6, height=24, width=24)
    probe = {"class_path": "vjepa.training.online_probe.OnlineProbe", "init_args": {"every_n_steps": 2}}
    recipe = tiny_recipe(tmp_path, tmp_path / "clips", root=tmp_path / "runs", callbacks=[probe])
    command = [sys.executable, "-m", "vjepa", "fit", "--config", str(recipe), "--trainer.devices", "2"]
    command += ["--trainer.strategy", "fsdp2", "--model.mask_batch", "all", "--data.batch_size", "2"]
    command += [
        "--data.val",
        str(tmp_path / "clips"),
        "--report.probes",
        "[linear]",
        "--report.picture",
        "true",
    ]
    for steps, version, more in ((3, 0, []), (5, 1, ["--ckpt_path", "last"])):
        done = subprocess.run(
            [*command, "--trainer.max_steps", str(steps), *more],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        run_folder = tmp_path / "runs" / f"version_{version}"
        video = torch.randn(1, 3, 4, 16, 16)
        figures = json.loads((run_folder / "result.json").read_text())
        assert "probe/linear_gain" in (run_folder / "metrics.csv").read_text().splitlines()[0]
        assert figures["probe_label"]["linear"]["chance"] == 0.5 and figures["steps"] == steps
        exported, saved = (load_encoder(run_folder / p) for p in ("export", "checkpoints/last.ckpt"))
        assert torch.equal(exported(video), saved(video))
    held = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert held["global_step"] == 5
