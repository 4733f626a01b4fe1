"""Files written whole with the permissions of the umask, and folders that one process holds."""

import os
import stat

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
