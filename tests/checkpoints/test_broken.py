"""Broken and hostile checkpoints on the command line: one clear line, exit 2, nothing run, nothing written."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.given import hf_case, tiny_encoder, tiny_predictor, training_file
from tests.checkpoints.test_native import Payload
from vjepa.checkpoints import save_folder
from vjepa.commands.app import main

KEY = "blocks.1.mlp.fc2.weight"
CHANGES = {
    "one missing": lambda tensors, key: tensors.pop(key),
    "one renamed": lambda tensors, key: tensors.update({key + "_old": tensors.pop(key)}),
    "one of another shape": lambda tensors, key: tensors.update({key: torch.zeros(3, 5)}),
}
NAMED = {"one missing": "missing", "one renamed": "not expected", "one of another shape": "other shape"}
FORMATS = ("native", "meta", "hf")


def damaged(tmp_path, form, change):
    """A checkpoint of a format with one tensor changed."""
    if form == "meta":
        content = training_file(tmp_path / "src.pt")
        change(content["target_encoder"], f"module.backbone.{KEY}")
        torch.save(content, tmp_path / "src.pt")
        return tmp_path / "src.pt"
    if form == "native":
        folder = save_folder(tmp_path / "src", tiny_encoder(), predictor=tiny_predictor())
        file, key = folder / "encoder.safetensors", KEY
    else:
        _, folder = hf_case(tmp_path / "src", "hf_vjepa2_model")
        file, key = folder / "model.safetensors", f"encoder.layer.{KEY.removeprefix('blocks.')}"
    tensors = load_file(file)
    change(tensors, key)
    save_file(tensors, file)
    return folder


def refused(command, capsys) -> str:
    """The one line with which a command ends that must exit with 2."""
    capsys.readouterr()
    assert main(command) == 2
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("vjepa") or "error" in line
    ]
    assert len(lines) == 1 and "Traceback" not in lines[0]
    return lines[0]


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("form", FORMATS)
def test_one_tensor_that_does_not_fit(tmp_path, capsys, form, kind):
    src = damaged(tmp_path, form, CHANGES[kind])
    heads = ["--num_heads", "2", "--predictor_num_heads", "2"] if form == "meta" else []
    for command in (
        ["inspect", str(src)],
        ["convert", str(src), str(tmp_path / "dst"), "--to", "native", *heads],
    ):
        line = refused(command, capsys)
        assert NAMED[kind] in line and KEY in line and str(src) in line
    assert not (tmp_path / "dst").exists()


@pytest.mark.parametrize("kind", ["payload", "truncated", "text", "empty"])
@pytest.mark.parametrize("verb", ["inspect", "convert"])
def test_files_that_are_no_checkpoints(tmp_path, capsys, kind, verb):
    path, trace = tmp_path / "bad.pt", tmp_path / "trace"
    training_file(path)
    if kind == "payload":
        path.write_bytes(pickle.dumps({"encoder": Payload(trace)}))
    else:
        whole = path.read_bytes()
        path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"hello\n", "empty": b""}[kind])
    more = [str(tmp_path / "dst"), "--to", "native"] if verb == "convert" else []
    assert "bad.pt" in refused([verb, str(path), *more], capsys)
    assert not trace.exists() and not (tmp_path / "dst").exists()


@pytest.mark.parametrize("kind", ["index", "shard", "config"])
def test_folders_that_are_not_whole(tmp_path, capsys, kind):
    _, folder = hf_case(tmp_path / "src", "hf_vjepa2_model", shards=2)
    file = {
        "index": folder / "model.safetensors.index.json",
        "shard": folder / "model-00002-of-00002.safetensors",
        "config": folder / "config.json",
    }[kind]
    if kind == "shard":
        file.unlink()
    else:
        file.write_text(file.read_text()[:-20])
    assert file.name in refused(["inspect", str(folder)], capsys)
    assert file.name in refused(["convert", str(folder), str(tmp_path / "dst"), "--to", "meta"], capsys)
    assert not (tmp_path / "dst").exists()


def test_entries_that_hold_no_tensors(tmp_path, capsys):
    torch.save({"encoder": {"a": 1}}, tmp_path / "a.pt")
    assert "entry `encoder`: does not hold only tensors by name" in refused(
        ["inspect", str(tmp_path / "a.pt")], capsys
    )
    torch.save({"encoder": {"module.a": torch.zeros(1), "a": torch.zeros(1)}}, tmp_path / "b.pt")
    assert "differ only by their prefix" in refused(["inspect", str(tmp_path / "b.pt")], capsys)
    torch.save({"encoder": {"norm.bias": torch.zeros(1)}}, tmp_path / "c.pt")
    assert "missing: patch_embed.proj.weight" in refused(["inspect", str(tmp_path / "c.pt")], capsys)
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"encoder": {}}))
    assert "has no encoder.safetensors; it holds config.json" in refused(["inspect", str(folder)], capsys)
