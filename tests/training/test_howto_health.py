"""docs/howto/health.md holds what it says: its settings run together, and its ModelCheckpoints choose."""

from pathlib import Path

import pytest
import yaml

from tests.docs_blocks import blocks_of
from tests.recipes import tiny_recipe
from tests.videos import write_manifest
from vjepa.commands.app import main

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "health.md"


@pytest.mark.slow
def test_the_settings_of_the_howto_run_together(tmp_path):
    parts = [yaml.safe_load(b.text)["trainer"] for b in blocks_of(HOWTO.read_text()) if b.language == "yaml"]
    merged = {key: [item for part in parts for item in part.get(key, [])] for key in ("callbacks", "plugins")}
    for callback in merged["callbacks"]:
        if "monitor" in callback["init_args"]:
            callback["init_args"]["every_n_train_steps"] = 2
        if "every_n_steps" in callback["init_args"]:
            callback["init_args"]["every_n_steps"] = 2
    clips = write_manifest(tmp_path / "clips", 8, num_frames=6, height=24, width=24)
    recipe = tiny_recipe(tmp_path, clips, root=tmp_path / "runs", max_steps=4, **merged)
    assert main(["fit", "--config", str(recipe), "--data.val", str(clips)]) == 0
    saved = {path.name for path in (tmp_path / "runs" / "version_0" / "checkpoints").iterdir()}
    assert saved - {"probed-step=2.ckpt", "probed-step=4.ckpt"} == {
        "last.ckpt",
        "healthy-step=2.ckpt",
        "healthy-step=4.ckpt",
    }
    assert any(name.startswith("probed-") for name in saved)
