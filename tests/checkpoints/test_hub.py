"""Names of the Hugging Face Hub: recognised, and off line the error says what to fetch by hand."""

import sys

import pytest

import vjepa
from tests.checkpoints.given import hf_case
from vjepa.checkpoints import CheckpointError
from vjepa.checkpoints.hub import is_hub_name

NAME = "facebook/vjepa2-vitl-fpc64-256"


def test_names_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert is_hub_name(NAME) and is_hub_name("me/my_model.v2")
    for path in ("runs/missing", "vitl.pt", "models/vitl.pt", "a/b/c", "./a/b", str(tmp_path / "x")):
        assert not is_hub_name(path), path
    with pytest.raises(FileNotFoundError):
        vjepa.load_encoder("runs/missing")
    (tmp_path / "runs" / "export").mkdir()
    assert not is_hub_name("rusn/export")
    with pytest.raises(FileNotFoundError, match=r"Did you mean runs/export\?"):
        vjepa.load_encoder("rusn/export")


def test_off_line_the_error_says_what_to_fetch(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=f"Download config.json and every .*{NAME} into one folder"):
        vjepa.load_encoder(NAME)
    _, folder = hf_case(tmp_path / "by_hand", "hf_vjepa2_model")
    assert vjepa.load_encoder(folder).embed_dim == 40


def test_without_the_client_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r'pip install "vjepa-toolkit\[hf\]"'):
        vjepa.load_encoder(NAME)
