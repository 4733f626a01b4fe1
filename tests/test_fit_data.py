"""What a fit sees: with broken clips, on two ranks, killed and resumed, from several data sets."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.recipes import tiny_recipe
from tests.videos import write_broken, write_videos
from vjepa.commands.app import main

pytestmark = pytest.mark.slow
TWO_RANKS = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.num_workers", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_videos(folder, 25, num_frames=6, height=24, width=24)
    return folder


def many_clips(folder: Path, target: Path, count: int) -> list[str]:
    """Copies of a folder's files under `count` names."""
    target.mkdir()
    files = sorted(folder.glob("*.mp4"))
    for i in range(count):
        (target / f"{i:04d}.mp4").write_bytes(files[i % len(files)].read_bytes())
    return [f"{i:04d}.mp4" for i in range(count)]


def losses(run: Path) -> list[str]:
    rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    return [row["train/loss"] for row in rows if row["train/loss"]]


def test_the_losses_are_those_of_a_clean_manifest_and_the_broken_files_are_listed(folder, tmp_path):
    names = many_clips(folder, tmp_path / "clips", 100)
    kinds = [file.read_bytes() for file in write_broken(tmp_path / "kinds")]
    broken = names[7::20]
    for i, name in enumerate(broken):
        (tmp_path / "clips" / name).write_bytes(kinds[i % len(kinds)])
    for manifest, rows in (("with", names), ("without", sorted(set(names) - set(broken)))):
        lines = ["path", *(f"clips/{name}" for name in rows)]
        (tmp_path / f"{manifest}.csv").write_text("\n".join(lines) + "\n")
    steps = ["--trainer.max_steps", "55"]  # more than two epochs
    curves = []
    for name in ("with", "without"):
        recipe = tiny_recipe(tmp_path, tmp_path / f"{name}.csv", root=tmp_path / name)
        assert main(["fit", "--config", str(recipe), *steps]) == 0
        curves.append(losses(tmp_path / name / "version_0"))
    assert len(curves[0]) == 55 and curves[0] == curves[1]
    listed = csv.DictReader((tmp_path / "with" / "version_0" / "failures.csv").read_text().splitlines())
    assert sorted(Path(row["path"]).name for row in listed) == broken


def fit(recipe: Path, *flags: str) -> subprocess.Popen[bytes]:
    """A fit in a process group of its own: with two ranks, the first starts the second."""
    command = [sys.executable, "-m", "vjepa", "fit", "--config", str(recipe), *flags]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 0, told.decode()


def kill_at(process: subprocess.Popen[bytes], last: Path, step: int) -> None:
    """Kill all of a run as soon as its last checkpoint is of `step` or later."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if last.is_file() and torch.load(last, weights_only=True)["global_step"] >= step:
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def weights_of(run: Path) -> list[bytes]:
    names = ("encoder", "context_encoder", "predictor")
    return [(run / "export" / f"{name}.safetensors").read_bytes() for name in names]


def test_two_ranks_with_broken_clips_killed_and_resumed_end_with_the_same_weights(folder, tmp_path):
    many_clips(folder, tmp_path / "clips", 25)
    broken = write_broken(tmp_path / "clips")
    every = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every["init_args"] = {"filename": "last", "every_n_train_steps": 1, "enable_version_counter": False}
    recipe = tiny_recipe(
        tmp_path, tmp_path / "clips", root=tmp_path / "runs", callbacks=[every], max_steps=60
    )
    flags = [*TWO_RANKS, "--data.batch_size", "2"]
    finish(fit(recipe, *flags))
    kill_at(fit(recipe, *flags), tmp_path / "runs" / "version_1" / "checkpoints" / "last.ckpt", step=11)
    finish(fit(recipe, *flags, "--ckpt_path", "last"))
    first, second = (tmp_path / "runs" / f"version_{number}" for number in (0, 2))
    assert weights_of(first) == weights_of(second)
    for run in (first, second):  # of both ranks, and of the time before it was killed
        listed = csv.DictReader((run / "failures.csv").read_text().splitlines())
        assert {row["path"] for row in listed} == {str(path) for path in broken}


def mixture_recipe(folder: Path, images: Path, videos: Path, **trainer) -> Path:
    """Images by themselves and clips of four frames."""
    recipe = tiny_recipe(folder, videos, root=folder / "runs", **trainer)
    settings = yaml.safe_load(recipe.read_text())
    del settings["data"]["train"]
    settings["data"]["parts"] = [
        {"source": str(videos), "weight": 0.75},
        {"source": str(images), "weight": 0.25, "batch_size": 8, "sampler": {"num_frames": 1},
         "transform": {"size": 24, "flip": 0.0}},
    ]  # fmt: skip
    recipe.write_text(yaml.safe_dump(settings))
    return recipe


def test_images_and_videos_in_one_run_train_and_resume(folder, tmp_path):
    images = tmp_path / "images"
    many_clips(folder, images, 30)
    whole = mixture_recipe(tmp_path, images, folder, max_steps=40)
    workers = ["--data.num_workers", "2"]
    assert main(["fit", "--config", str(whole), *workers]) == 0
    every = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every["init_args"] = {"filename": "last", "every_n_train_steps": 1, "enable_version_counter": False}
    saving = mixture_recipe(tmp_path, images, folder, max_steps=40, callbacks=[every])
    process = fit(saving, *workers)
    kill_at(process, tmp_path / "runs" / "version_1" / "checkpoints" / "last.ckpt", step=13)
    assert main(["fit", "--config", str(saving), *workers, "--ckpt_path", "last"]) == 0
    runs = [tmp_path / "runs" / f"version_{number}" for number in (0, 2)]
    assert weights_of(runs[0]) == weights_of(runs[1])
    assert len(losses(runs[0])) == 40
