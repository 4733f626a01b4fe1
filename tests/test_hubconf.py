"""torch.hub opens this repository as it opens others."""

from pathlib import Path

import torch

import vjepa
from tests.checkpoints.given import tiny_encoder

ROOT = str(Path(__file__).resolve().parents[1])


def test_models_through_torch_hub(tmp_path):
    names = torch.hub.load(ROOT, "list_models", "vit_large*", source="local")
    assert "vit_large_patch16_256" in names
    sized = torch.hub.load(ROOT, "create_model", "vit_tiny_patch16_224", source="local", depth=1)
    assert isinstance(sized, vjepa.VideoEncoder) and sized.embed_dim == 192
    folder = tiny_encoder().save_pretrained(tmp_path / "encoder")
    assert torch.hub.load(ROOT, "load_encoder", folder, source="local").embed_dim == 24
