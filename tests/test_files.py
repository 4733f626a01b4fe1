"""Files that are written whole or not at all, also where the space ends."""

import subprocess
import sys

import pytest

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
