"""The installed script finds modules in the working directory, as the how-tos say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.videos import write_videos

ROOT = Path(__file__).parents[2]
# the code of the installed script: Python puts the script's folder on its path, not the working directory
SCRIPT = """import sys
from vjepa.commands.app import main
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture
def script(tmp_path):
    """Run the script's code in the folder `here`."""
    file = tmp_path / "bin" / "vjepa"
    file.parent.mkdir()
    file.write_text(SCRIPT)
    here = tmp_path / "here"
    here.mkdir()

    def run(*argv: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *python, str(file), *argv],
            cwd=here,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("-P",)])
def test_a_decoder_in_the_working_directory_is_found_unless_python_is_told_not_to(tmp_path, script, flags):
    write_videos(tmp_path / "here" / "clips", 2, num_frames=4, height=16, width=16)
    (tmp_path / "here" / "my_decoder.py").write_text(
        "from vjepa.data.decoders.backends.pyav import PyAVDecoder\n\n\n"
        'class Mine(PyAVDecoder):\n    """A decoder of the user."""\n'
    )
    done = script("data", "check", "clips", "--decoder", "my_decoder.Mine", "--out", "checked", python=flags)
    assert done.returncode == (2 if flags else 0), done.stderr
    assert ("my_decoder" in done.stderr) == bool(flags)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "name"), [("mask", "my_masks"), ("objective", "my_objective"), ("probing", "my_probe")]
)
def test_the_files_of_the_howtos_are_found_where_they_are_saved(tmp_path, script, page, name):
    text = (ROOT / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8")
    assert re.search(rf"`{name}\.py` .*where you run", text)
    (tmp_path / "here" / f"{name}.py").write_text("print('found')\n")
    (tmp_path / "here" / "json.py").write_text("raise SystemExit('it hides a module of Python')\n")
    file = tmp_path / "bin" / "vjepa"
    file.write_text(SCRIPT.replace("sys.exit(main())", f"main()\n    import {name}"))
    done = script("--version")
    assert done.returncode == 0 and "found" in done.stdout, done.stderr
