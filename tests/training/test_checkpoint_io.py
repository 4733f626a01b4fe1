"""Checkpoints that are damaged or cannot be written: real files, a real limit of size."""

import os
import resource
import signal

import pytest
import torch

from vjepa.checkpoints.opening import newest_whole
from vjepa.checkpoints.strict import CheckpointError
from vjepa.training import AtomicCheckpointIO

CONTENT = {"state_dict": {"weight": torch.arange(50_000.0)}, "global_step": 3}


@pytest.fixture
def full_disk():
    """No file may grow beyond 64 kB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(
        signal.SIGXFSZ, signal.SIG_IGN
    )  # the write then fails with an error, as on a disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def damaged(path):
    """Flip a bit in the middle of the weights."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [damaged, lambda path: os.truncate(path, 9000)])
def test_a_damaged_file_is_refused_and_a_good_one_named(tmp_path, harm):
    files = AtomicCheckpointIO()
    for name in ("older.ckpt", "last.ckpt"):
        files.save_checkpoint(CONTENT, tmp_path / name)
    assert newest_whole(tmp_path) in (tmp_path / "older.ckpt", tmp_path / "last.ckpt")
    harm(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last.ckpt is damaged: .*Resume from .*older.ckpt"):
        files.load_checkpoint(tmp_path / "last.ckpt")
    assert files.load_checkpoint(newest_whole(tmp_path))["global_step"] == 3
    harm(tmp_path / "older.ckpt")
    assert newest_whole(tmp_path) is None
    with pytest.raises(CheckpointError, match="no other beside it"):
        files.load_checkpoint(tmp_path / "last.ckpt")


def test_a_failed_save_stops_the_run_and_keeps_the_last_good_file(tmp_path, request):
    files, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    files.save_checkpoint(CONTENT, path)
    request.getfixturevalue("full_disk")
    with pytest.raises(CheckpointError, match="cannot be saved .*last good file is kept.*'continue'"):
        files.save_checkpoint(CONTENT | {"global_step": 4}, path)
    assert files.load_checkpoint(path)["global_step"] == 3
    assert list(tmp_path.iterdir()) == [path]  # nothing half written


def test_a_failed_save_may_let_the_run_go_on_loudly(tmp_path, full_disk, caplog):
    AtomicCheckpointIO(failed_save="continue").save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    assert "cannot be saved" in caplog.text and caplog.records[-1].levelname == "ERROR"
    assert not list(tmp_path.iterdir())
