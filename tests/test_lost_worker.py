"""A process that reads clips is killed in a real fit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.recipes import tiny_recipe
from tests.videos import write_manifest
from vjepa.commands.app import main
from vjepa.data import VideoDataModule
from vjepa.data.loading.workers import LostWorkerError

pytestmark = pytest.mark.slow


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.is_file():
        pytest.skip("needs /proc to find the worker")
    return [int(child) for child in listed.read_text().split()]


def test_a_run_whose_worker_was_killed_says_so_saves_and_ends_bit_equal(tmp_path):
    manifest = write_manifest(tmp_path / "many", 24, num_frames=6, height=24, width=24)
    more = ["--trainer.max_steps", "60", "--data.num_workers", "2"]
    whole = tiny_recipe(tmp_path, manifest, root=tmp_path / "whole")
    assert main(["fit", "--config", str(whole), *more]) == 0
    lost = tiny_recipe(tmp_path, manifest, root=tmp_path / "lost")
    command = [sys.executable, "-m", "vjepa", "fit", "--config", str(lost), *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("step "))
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        rest = process.stderr.read()
    assert process.returncode == 2, rest
    assert "a process that reads clips ended or was killed" in rest
    last = tmp_path / "lost" / "version_0" / "checkpoints" / "last.ckpt"
    step = torch.load(last, weights_only=True)["global_step"]
    assert f"step {step} is saved; resume with --ckpt_path {last}" in rest
    assert main(["fit", "--config", str(lost), *more, "--ckpt_path", "last"]) == 0
    runs = tmp_path / "whole" / "version_0", tmp_path / "lost" / "version_1"
    first, second = ((run / "export" / "encoder.safetensors").read_bytes() for run in runs)
    assert first == second


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), LostWorkerError),
        (EOFError(), LostWorkerError),
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly"), LostWorkerError),
        (
            ConnectionError("Caught ConnectionError in DataLoader worker process 0.\nno route"),
            ConnectionError,
        ),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0."), RuntimeError),
    ],
)
def test_a_worker_is_lost_however_it_shows(tmp_path, error, expected):
    def broken(keys):
        raise error
        yield

    data = VideoDataModule(train=str(write_manifest(tmp_path, 4)), batch_size=2)
    data.setup("fit")
    loader = data.train_dataloader()
    loader.make = broken
    with pytest.raises(expected) as found:
        next(iter(loader))
    assert type(found.value) is expected


def test_the_error_says_what_to_do():
    message = str(LostWorkerError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert "(DataLoader worker (pid 7) is killed by signal: Killed)" in message
    assert "lower --data.num_workers" in message and "--ckpt_path last" in message
