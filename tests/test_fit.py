"""`vjepa fit` and `vjepa validate`, as a user runs them: real files, a real trainer, a real process to kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import vjepa
from tests.recipes import tiny_recipe
from tests.videos import write_broken, write_manifest, write_videos
from vjepa.commands.app import main
from vjepa.features import ClipSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_videos(folder, 12, num_frames=6, height=24, width=24)
    return folder


def log_dir(root: Path, version: int = 0) -> Path:
    return root / f"version_{version}"


def test_a_fit_leaves_all_that_is_promised(clips, tmp_path, capsys):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    assert main(["fit", "--config", str(recipe)]) == 0
    run = log_dir(tmp_path / "runs")
    encoder = vjepa.load_encoder(run / "export")
    video = torch.randn(1, 3, 4, 16, 16)
    again = vjepa.load_encoder(run / "checkpoints" / "last.ckpt")
    assert torch.equal(encoder(video), again(video))
    assert not torch.equal(encoder(video), vjepa.load_encoder(run / "export", which="context")(video))
    vjepa.load_predictor(run / "export")
    assert encoder.trained_clips == again.trained_clips
    spec = ClipSpec.for_encoder(encoder)
    assert (spec.num_frames, spec.fps, spec.size, spec.short_side) == (4, 4.0, (16, 16), 16)
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 8 and result["failed_clips"] == 0 and result["seed"] == 3
    logged = (run / "metrics.csv").read_text()
    for name in ("loss", "target_std", "target_rank", "prediction_rank", "target_cosine", "loss_over_mean"):
        assert f"train/{name}" in logged
    for name in (
        "grad_norm_encoder",
        "grad_norm_predictor",
        "ema_distance",
        "lr",
        "weight_decay",
        "momentum",
    ):
        assert f"train/{name}" in logged
    assert list(run.glob("events.out.tfevents.*"))
    every = [row for row in csv.DictReader(logged.splitlines()) if row["train/loss"]]
    assert len(every) > 1 and all(row["train/target_rank"] and row["train/lr"] for row in every)
    shown = capsys.readouterr().out
    assert "loss_over_mean" in shown
    latest = tmp_path / "runs" / "latest"
    assert shown.splitlines()[-2:] == [
        f"everything is in {latest}: the encoder in {latest / 'export'}",
        f"next: vjepa extract --encoder {latest}/export --data {clips} --out {tmp_path}/runs/features",
    ]


def test_the_saved_config_runs_again_from_another_folder(clips, tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    assert main(["fit", "--config", str(recipe), "--trainer.max_steps", "2"]) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["fit", "--config", str(log_dir(tmp_path / "runs") / "config.yaml")]) == 0
    first, second = (log_dir(tmp_path / "runs", version) for version in (0, 1))
    assert_equal_weights(first, second)


def test_validate_measures_a_checkpoint(clips, tmp_path, capsys):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    assert main(["fit", "--config", str(recipe), "--trainer.max_steps", "2"]) == 0
    capsys.readouterr()
    arguments = ["validate", "--config", str(recipe), "--data.val", str(clips), "--ckpt_path", "last"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "val/loss:" in first and "val/target_rank:" in first
    assert main(arguments) == 0
    assert capsys.readouterr().out == first  # the same masks, the same clips
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["latest", "version_0"]
    assert (tmp_path / "runs" / "latest").resolve() == log_dir(tmp_path / "runs")
    vjepa.load_encoder(tmp_path / "runs" / "latest" / "export")


@pytest.mark.parametrize(
    ("verb", "flags", "told"),
    [
        ("fit", ["--data.train", "absent.csv"], "no such manifest"),
        ("validate", ["--ckpt_path", "absent.ckpt"], "no such checkpoint"),
        ("fit", ["--ckpt_path", __file__], "was not written by torch"),
        ("fit", ["--trainer.default_root_dir", __file__], "is a file. Give a folder"),
    ],
)
def test_a_run_that_cannot_begin_leaves_no_folder(clips, tmp_path, capsys, verb, flags, told):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    assert main([verb, "--config", str(recipe), *flags]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_of_another_model_is_refused(clips, tmp_path, capsys):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    assert main(["fit", "--config", str(recipe), "--trainer.max_steps", "1"]) == 0
    last = log_dir(tmp_path / "runs") / "checkpoints" / "last.ckpt"
    deeper = recipe.read_text().replace("depth: 1", "depth: 2")
    assert deeper != recipe.read_text()
    recipe.write_text(deeper)
    assert main(["fit", "--config", str(recipe), "--ckpt_path", str(last)]) == 2
    assert "belongs to another model: missing: objective" in capsys.readouterr().err
    assert not log_dir(tmp_path / "runs", 1).exists()


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]
)
def test_a_run_that_is_stopped_says_so_and_saves(clips, tmp_path, sent, code):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    command = [sys.executable, "-m", "vjepa", "fit", "--config", str(recipe), "--trainer.max_steps", "100000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = next(line for line in process.stderr if line.startswith("step "))
        process.send_signal(sent)
        rest = process.stderr.read()
    assert process.returncode == code, seen + rest
    assert rest.splitlines()[-1].startswith(f"vjepa: ended by {sent.name}: step ")
    last = log_dir(tmp_path / "runs") / "checkpoints" / "last.ckpt"
    step = torch.load(last, weights_only=True)["global_step"]
    assert f"step {step} is saved; resume with --ckpt_path {last}" in rest


@pytest.mark.parametrize("found", [True, False])
def test_a_slurm_job_saves_a_whole_step_and_is_requeued(tmp_path, found):
    """In the environment that srun gives; `scontrol` is a script that writes down what it is asked for."""
    manifest = write_manifest(tmp_path / "many", 24, num_frames=6, height=24, width=24)
    root, tools = tmp_path / "runs", tmp_path / "bin"
    recipe = tiny_recipe(tmp_path, manifest, root=root, max_steps=100_000, accumulate_grad_batches=2)
    tools.mkdir()
    if found:
        (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
        (tools / "scontrol").chmod(0o755)
    names = ("NTASKS", "NTASKS_PER_NODE", "NNODES")
    job = {f"SLURM_{name}": "1" for name in names} | {
        f"SLURM_{name}": "0" for name in ("PROCID", "LOCALID", "NODEID")
    }
    environment = os.environ | job | {"SLURM_JOB_ID": "42", "SLURM_JOB_NAME": "pretrain"}
    environment["PATH"] = f"{tools}:{Path(sys.executable).parent}"
    command = [sys.executable, "-m", "vjepa", "fit", "--config", str(recipe), "--ckpt_path", "auto"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        seen = next(line for line in process.stderr if line.startswith("step "))
        process.send_signal(signal.SIGUSR1)
        rest = process.stderr.read()
    assert process.returncode == 138, seen + rest
    assert [path.name for path in root.glob("**/*.ckpt")] == ["last.ckpt"]  # none of Lightning's own
    if found:
        assert (tmp_path / "asked").read_text() == "requeue 42\n"
    else:
        assert "SLURM job 42 could not be requeued" in rest and "Submit it again" in rest


def test_a_run_that_was_stopped_ends_bit_equal(tmp_path):
    manifest = write_manifest(tmp_path / "many", 24, num_frames=6, height=24, width=24)
    more = ["--trainer.max_steps", "60", "--data.num_workers", "1"]
    whole = tiny_recipe(tmp_path, manifest, root=tmp_path / "whole")
    assert main(["fit", "--config", str(whole), *more]) == 0
    stopped = tiny_recipe(tmp_path, manifest, root=tmp_path / "stopped")
    command = [sys.executable, "-m", "vjepa", "fit", "--config", str(stopped), *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("step "))
        process.send_signal(signal.SIGUSR1)
        process.stderr.read()
    assert process.returncode == 138
    assert main(["fit", "--config", str(stopped), *more, "--ckpt_path", "last"]) == 0
    assert_equal_weights(log_dir(tmp_path / "whole"), log_dir(tmp_path / "stopped", 1))


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    manifest = write_manifest(tmp_path / "many", 24, num_frames=6, height=24, width=24)
    workers = ["--data.num_workers", "2", "--trainer.max_steps", "100"]
    whole = tiny_recipe(tmp_path, manifest, root=tmp_path / "whole")
    assert main(["fit", "--config", str(whole), *workers]) == 0
    every = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every["init_args"] = {"filename": "last", "every_n_train_steps": 1, "enable_version_counter": False}
    killed = tiny_recipe(tmp_path, manifest, root=tmp_path / "killed", callbacks=[every])
    command = [sys.executable, "-m", "vjepa", "fit", "--config", str(killed), *workers]
    kill_in_mid_epoch(command, log_dir(tmp_path / "killed"), step=9)
    assert main(["fit", "--config", str(killed), *workers, "--ckpt_path", "last"]) == 0
    assert_equal_weights(log_dir(tmp_path / "whole"), log_dir(tmp_path / "killed", 1))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_killed_on_shards_resumes_to_the_same_weights(tmp_path, streamed):
    manifest = write_manifest(tmp_path / "many", 24, num_frames=6, height=24, width=24)
    shards = tmp_path / "shards"
    assert main(["data", "shard", str(manifest), "--out", str(shards), "--clips_per_shard", "7"]) == 0
    workers = ["--data.num_workers", "2", "--trainer.max_steps", "60"]
    source = [{"source": str(shards), "stream_bytes": 100_000}] if streamed else shards
    whole = tiny_recipe(tmp_path, source, root=tmp_path / "whole")
    assert main(["fit", "--config", str(whole), *workers]) == 0
    every = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every["init_args"] = {"filename": "last", "every_n_train_steps": 1, "enable_version_counter": False}
    killed = tiny_recipe(tmp_path, source, root=tmp_path / "killed", callbacks=[every])
    command = [sys.executable, "-m", "vjepa", "fit", "--config", str(killed), *workers]
    kill_in_mid_epoch(command, log_dir(tmp_path / "killed"), step=9)
    assert main(["fit", "--config", str(killed), *workers, "--ckpt_path", "last"]) == 0
    assert_equal_weights(log_dir(tmp_path / "whole"), log_dir(tmp_path / "killed", 1))
    if not streamed:
        files = tiny_recipe(tmp_path, manifest, root=tmp_path / "files")
        assert main(["fit", "--config", str(files), *workers]) == 0
        assert_equal_weights(log_dir(tmp_path / "whole"), log_dir(tmp_path / "files"))


def kill_in_mid_epoch(command: list[str], run: Path, *, step: int) -> None:
    """Start a run, and kill it as soon as its last checkpoint is of `step` or later: 6 steps make an epoch."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, **quiet)
    last, deadline = run / "checkpoints" / "last.ckpt", time.monotonic() + 120
    while time.monotonic() < deadline:
        if last.is_file():
            saved = torch.load(last, weights_only=True)["global_step"]
            if saved >= step and saved % 6:
                break
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(last, weights_only=True)["global_step"] < 100


def assert_equal_weights(first: Path, second: Path) -> None:
    """The networks of two runs are equal, bit for bit."""
    for name in ("encoder", "context_encoder", "predictor"):
        files = [run / "export" / f"{name}.safetensors" for run in (first, second)]
        assert files[0].read_bytes() == files[1].read_bytes(), name


def test_broken_clips_are_listed_and_too_many_stop_the_run(tmp_path, caplog, capsys):
    folder = tmp_path / "clips"
    write_videos(folder, 9, num_frames=6, height=24, width=24)
    broken = write_broken(folder)
    recipe = tiny_recipe(tmp_path, folder, root=tmp_path / "runs")
    with caplog.at_level("WARNING"):
        assert main(["fit", "--config", str(recipe)]) == 0
    assert all(caplog.text.count(f"cannot read {path}") == 1 for path in broken)
    result = json.loads((log_dir(tmp_path / "runs") / "result.json").read_text())
    assert result["failed_clips"] == len(broken) == 3
    listed = (log_dir(tmp_path / "runs") / "failures.csv").read_text()
    assert all(str(path) in listed for path in broken)
    assert main(["fit", "--config", str(recipe), "--data.reading.max_failures", "0"]) == 2
    assert "--data.reading.max_failures" in capsys.readouterr().err


def test_a_set_without_a_readable_clip_stops_at_once(tmp_path, capsys):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.mp4").write_bytes(b"no video")
    recipe = tiny_recipe(tmp_path, folder, root=tmp_path / "runs")
    assert main(["fit", "--config", str(recipe)]) == 2
    assert "no readable clip among the first 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--data.batch_sise=4", "--data.batch_size"),
        ("--trainer.max_step=4", "--trainer.max_steps"),
        ("--model.objective.init_args.predictor.init_args.dept=1", "depth"),
    ],
)
def test_a_misspelt_flag_names_the_nearest(clips, tmp_path, capsys, flag, nearest):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    assert main(["fit", "--config", str(recipe), flag]) == 2
    error = capsys.readouterr().err
    assert nearest in error and error.count("\n") == 1


def test_a_misspelt_key_of_a_recipe_names_file_line_and_the_nearest(clips, tmp_path, capsys):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    settings = yaml.safe_load(recipe.read_text())
    settings["data"]["batch_sizes"] = settings["data"].pop("batch_size")
    recipe.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert "batch_size'" in error and "tiny.yaml:" in error and error.count("\n") == 1


def test_last_without_a_checkpoint_says_where_it_looked(clips, tmp_path, capsys):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "nothing")
    assert main(["fit", "--config", str(recipe), "--ckpt_path", "last"]) == 2
    assert str(tmp_path / "nothing") in capsys.readouterr().err


def test_auto_begins_and_goes_on(clips, tmp_path, caplog):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    command = ["fit", "--config", str(recipe), "--ckpt_path", "auto", "--trainer.max_steps"]
    assert main([*command, "2"]) == 0
    assert f"no last.ckpt below {tmp_path / 'runs'}, from the start" in caplog.text
    assert main([*command, "8"]) == 0
    assert str(log_dir(tmp_path / "runs") / "checkpoints" / "last.ckpt") in caplog.text
    logged = (log_dir(tmp_path / "runs", 1) / "metrics.csv").read_text()
    rows = list(csv.DictReader(logged.splitlines()))
    assert {int(row["step"]) for row in rows} == set(range(2, 8))


def test_a_run_without_an_end_is_refused(clips, tmp_path, capsys):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs", max_steps=-1)
    assert main(["fit", "--config", str(recipe)]) == 2
    assert "--trainer.max_steps" in capsys.readouterr().err
    assert main(["fit", "--config", str(recipe), "--trainer.max_steps", "1"]) == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--data.sampler.num_frames", "0"], "error: num_frames 0, fps 4.0"),
        (["--model.lr_rule.reference_batch", "0"], "error: reference_batch is 0. Give"),
        (["--model.betas", "[1.5,0.9]"], "error: betas (1.5, 0.9)"),
        (
            ["--model.momentum", "vjepa.optim.Constant", "--model.momentum.init_args.at", "1.5"],
            "must be 0 to 1",
        ),
        (["--model.lr.init_args.peak", "-0.1"], "it must be 0 or more"),
        (["--trainer.precision", "64-true"], "Set it to 32-true, bf16-mixed or 16-mixed"),
        (["--trainer.precision", "bf16-true"], "to be no faster than bf16-mixed and to take more memory"),
        (["--trainer.accumulate_grad_batches", "-2"], "give 1 or more"),
    ],
)
def test_values_out_of_range_are_mistakes_and_no_crashes(clips, tmp_path, capsys, flags, told):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    assert main(["fit", "--config", str(recipe), *flags]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("monitor", "told"),
    [
        ("train/unhealty", "Did you mean train/unhealthy?"),
        ("val/loss", "monitor val/loss is not a figure of this run"),
        ("probe/linear", "There is no vjepa.training.online_probe.OnlineProbe in trainer.callbacks"),
    ],
)
def test_a_figure_that_no_run_logs_chooses_no_checkpoint(clips, tmp_path, capsys, monitor, told):
    arguments = {"monitor": monitor, "every_n_train_steps": 2}
    chosen = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": arguments}
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs", callbacks=[chosen])
    assert main(["fit", "--config", str(recipe)]) == 2
    assert told in capsys.readouterr().err


def test_chosen_checkpoints_come_beside_the_last_one(clips, tmp_path):
    arguments = {"monitor": "train/unhealthy", "mode": "min", "every_n_train_steps": 4, "filename": "best"}
    chosen = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": arguments}
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs", callbacks=[chosen], max_steps=201)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vjepa.training.callbacks.LastCheckpoint.on_train_end", lambda *_: None)  # as if killed
        assert main(["fit", "--config", str(recipe)]) == 0
    assert {path.name for path in tmp_path.glob("runs/**/*.ckpt")} == {"best.ckpt", "last.ckpt"}


def test_a_run_that_is_done_says_that_nothing_is_left(clips, tmp_path, caplog):
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs")
    assert main(["fit", "--config", str(recipe), "--trainer.max_steps", "2"]) == 0
    assert main(["fit", "--config", str(recipe), "--trainer.max_steps", "2", "--ckpt_path", "last"]) == 0
    assert "is of step 2, --trainer.max_steps 2: nothing is left to train" in caplog.text
