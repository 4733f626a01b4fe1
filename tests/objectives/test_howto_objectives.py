"""docs/howto/objectives.md holds what it says: its class works from outside the package, its keys are real."""

from pathlib import Path

import pytest
import yaml

from tests.docs_blocks import blocks_of
from tests.recipes import tiny_recipe
from tests.videos import write_videos
from vjepa.commands.app import main

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "objectives.md"


@pytest.mark.slow
def test_the_objective_and_the_keys_of_the_howto_work(tmp_path, monkeypatch):
    blocks = blocks_of(HOWTO.read_text(encoding="utf-8"))
    (tmp_path / "my_objectives.py").write_text(next(b.text for b in blocks if b.language == "python"))
    monkeypatch.syspath_prepend(str(tmp_path))
    write_videos(tmp_path / "clips", 4, num_frames=6, height=24, width=24)
    recipe = tiny_recipe(tmp_path, tmp_path / "clips", root=tmp_path / "runs", max_steps=2)
    given = yaml.safe_load(recipe.read_text())
    keys = [yaml.safe_load(b.text) for b in blocks if b.language == "yaml"]
    assert [sorted(k) for k in keys] == [["loss_exp", "masks"], ["frame_counts"]]
    given["model"]["objective"]["init_args"] |= keys[0] | {"frame_counts": [4, *keys[1]["frame_counts"]]}
    given["model"]["objective"]["init_args"]["masks"][0]["init_args"] = {"num_targets": 1}
    recipe.write_text(yaml.safe_dump(given))
    assert main(["fit", "--config", str(recipe)]) == 0

    encoder = given["model"]["objective"]["init_args"]["encoder"]
    given["model"]["objective"] = {
        "class_path": "my_objectives.MeanColour",
        "init_args": {"encoder": encoder},
    }
    del given["model"]["momentum"]
    recipe.write_text(yaml.safe_dump(given))
    assert main(["fit", "--config", str(recipe)]) == 0
