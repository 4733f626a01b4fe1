"""tools/kill_twenty.py, in short: two kills, and the weights of an uninterrupted run."""

import importlib.util
from pathlib import Path

import pytest

from tests.recipes import tiny_recipe
from tests.videos import write_manifest

TOOL = Path(__file__).parents[1] / "tools" / "kill_twenty.py"


@pytest.mark.slow
def test_two_kills_leave_the_weights_as_they_are(tmp_path):
    spec = importlib.util.spec_from_file_location("kill_twenty", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    manifest = write_manifest(tmp_path / "many", 24, num_frames=6, height=24, width=24)
    every = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every["init_args"] = {"filename": "last", "every_n_train_steps": 1, "enable_version_counter": False}
    recipe = tiny_recipe(tmp_path, manifest, root=tmp_path / "none", callbacks=[every], max_steps=60)
    assert tool.kill_and_compare(recipe, tmp_path / "out", kills=2, longest=0.1, seed=0) == (2, True)
