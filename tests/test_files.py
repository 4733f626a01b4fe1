"""Files written whole with the permissions of the umask, and folders that one process holds."""

import os
import stat
import subprocess
import sys

import pytest

from vjepa.commands.app import main
from vjepa.files import held, write_text


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text("a", tmp_path / "a.txt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_held_once_or_shared_and_goes_if_it_is_empty(tmp_path):
    out = tmp_path / "out"
    with held(out) as first, held(out) as second, held(out, shared=True) as third:
        assert (first, second, third) == (True, False, False)
    with held(out, shared=True) as first, held(out, shared=True) as second, held(out) as third:
        assert (first, second, third) == (True, True, False)
    assert not out.exists()
    with held(out):
        write_text("a", out / "a.txt")
    assert out.is_dir()


@pytest.mark.parametrize("verb", ["data world", "data check clips", "data shard clips"])
def test_two_processes_do_not_write_to_one_out(tmp_path, capsys, verb):
    out = tmp_path / "out"
    with held(out):
        assert main([*verb.split(), "--out", str(out)]) == 2
    assert "another process writes to it. Wait until it ends" in capsys.readouterr().err


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from vjepa.commands.app import is_users
from vjepa.files import replacing, write_tensors
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder, large = Path(sys.argv[1]), torch.zeros(1_000_000)

def saved():
    with replacing(folder / "a.pt") as temporary:
        torch.save({"a": large}, temporary)

for write in (saved, lambda: write_tensors({"a": large}, folder / "a.safetensors")):
    try:
        write()
    except OSError as error:
        assert is_users(error) and str(folder) in str(error), error
    else:
        raise SystemExit("written")
    assert not list(folder.iterdir())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
def test_where_the_space_ends_the_file_is_named_and_nothing_stays(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
