"""docs/howto/mask.md holds what it says: its class works from outside the package, in a real fit."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.docs_blocks import blocks_of
from tests.recipes import tiny_recipe
from tests.videos import write_videos
from vjepa.commands.app import main
from vjepa.types import TokenGrid

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "mask.md"


@pytest.mark.slow
def test_the_mask_of_the_howto_works_from_outside(tmp_path, monkeypatch):
    blocks = {block.language: block.text for block in blocks_of(HOWTO.read_text(encoding="utf-8"))}
    (tmp_path / "my_masks.py").write_text(blocks["python"])
    monkeypatch.syspath_prepend(str(tmp_path))
    write_videos(tmp_path / "clips", 4, num_frames=6, height=24, width=24)
    recipe = tiny_recipe(tmp_path, tmp_path / "clips", root=tmp_path / "runs", max_steps=2)
    settings = yaml.safe_load(recipe.read_text())
    settings["model"]["objective"]["init_args"] |= yaml.safe_load(blocks["yaml"])
    settings["model"]["objective"]["init_args"]["masks"][0]["init_args"]["num_hidden"] = 1
    recipe.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(recipe)]) == 0
    strategy = sys.modules["my_masks"].DroppedTimes(num_hidden=1)
    pair = strategy.sample(TokenGrid(t=4, h=2, w=2), 3, torch.Generator().manual_seed(0))
    assert (pair.context.shape, pair.target.shape) == ((3, 12), (3, 4))
