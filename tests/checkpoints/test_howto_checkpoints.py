"""docs/howto/checkpoints.md holds what it says: its commands and its Python run, on small files of those names."""

import shlex
from pathlib import Path

import pytest
import torch
import yaml

import vjepa
from tests.checkpoints.given import prefixed, random_
from tests.docs_blocks import blocks_of, commands_of
from tests.recipes import tiny_recipe
from tests.videos import write_videos
from vjepa.checkpoints import save_meta
from vjepa.commands.app import main
from vjepa.probes import AttentiveProbe

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "checkpoints.md"
WIDTH = 768  # published, so that heads are known


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """A training file and a probe with the names of the how-to, of a published width and one block."""
    monkeypatch.chdir(tmp_path)
    sizes = {"img_size": 32, "num_frames": 4, "embed_dim": WIDTH, "depth": 1, "num_heads": 12}
    target, context = (random_(vjepa.VideoEncoder(**sizes), seed) for seed in (1, 2))
    predictor = random_(vjepa.Predictor(WIDTH, depth=1, num_mask_tokens=2))
    networks = {"target_encoder": target, "encoder": context, "predictor": predictor}
    state = {k: prefixed(net.state_dict()) for k, net in networks.items()}
    torch.save({**state, "epoch": 240, "opt": {}}, "vitl.pt")
    probe = random_(AttentiveProbe(embed_dim=WIDTH, num_classes=4, num_heads=16, depth=2))
    save_meta("ssv2-vitl-16x2x3.pt", probe=probe)
    return tmp_path


@pytest.mark.slow
def test_the_howto(downloads, capsys):
    text = HOWTO.read_text(encoding="utf-8")
    blocks = blocks_of(text.replace("<!-- no-run", "<!-- run-here"))
    commands = [c for block in blocks if block.language == "bash" for c in commands_of(block)]
    for command in [c for c in commands if not c.startswith("vjepa fit")]:
        assert main(shlex.split(command)[1:]) == 0, command
    assert "max_abs_difference" in capsys.readouterr().out
    for block in blocks:
        # the checks of shapes in tests cannot be traced; tests/models/test_encoder.py runs the export
        if block.language == "python" and "torch.export" not in block.text:
            exec(compile(block.text, str(HOWTO), "exec"), {})


@pytest.mark.slow
def test_training_goes_on_from_a_released_model(downloads):
    assert main(["convert", "vitl.pt", "runs/vitl", "--to", "native"]) == 0
    write_videos(downloads / "clips", 4, num_frames=6, height=32, width=32)
    recipe = tiny_recipe(downloads, downloads / "clips", root=downloads / "fit", max_steps=3)
    settings = yaml.safe_load(recipe.read_text())
    block, _ = (b for b in blocks_of(HOWTO.read_text(encoding="utf-8")) if b.language == "yaml")
    settings["model"] |= yaml.safe_load(block.text)
    settings["data"]["transform"]["size"] = 32
    settings["trainer"] |= {"gradient_clip_val": 1.0}
    recipe.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(recipe)]) == 0
    (folder,) = (path.parent for path in (downloads / "fit").rglob("encoder.safetensors"))
    before, after = (
        vjepa.load_encoder("runs/vitl", which="context"),
        vjepa.load_encoder(folder, which="context"),
    )
    moved = max(
        float((a - b).detach().abs().max())
        for a, b in zip(before.parameters(), after.parameters(), strict=True)
    )
    assert 0 < moved < 0.1
