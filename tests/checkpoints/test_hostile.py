"""Checkpoints made in bad faith, or by mistake: one line and exit code 2, at once, and nothing is left behind."""

import argparse
import importlib
import json
import math
import os
import re
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

import vjepa
from tests.checkpoints.given import (
    WIDTH,
    assert_same_bytes,
    convert,
    prefixed,
    tiny_encoder,
    tiny_predictor,
    tiny_probe,
    training_file,
)
from vjepa.checkpoints import CheckpointError, save_folder, save_huggingface, save_meta
from vjepa.commands.app import main
from vjepa.commands.inspect import inspect
from vjepa.probes import ProbeError

HEADS = ["--num_heads", "2", "--predictor_num_heads", "2"]


def refused(argv, capsys) -> str:
    """The one line that a command ends with."""
    assert main(argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("vjepa: error: ") and "Traceback" not in "".join(lines)
    return lines[-1]


def meta_file(path, **changes):
    """A file of both networks with some tensors of the encoder replaced."""
    content = training_file(path)
    state = content["target_encoder"]
    for key, value in changes.items():
        state["module.backbone." + key.replace("__", ".")] = value
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"norm__weight": torch.tensor(1.0)}, "cannot be read"),
        ({"blocks__0__mlp__fc1__weight": torch.zeros(8)}, "cannot be read"),
        ({"patch_embed__proj__weight": torch.zeros(3)}, "cannot be read|does not match sincos"),
        ({"pos_embed": torch.zeros(4)}, "not expected: pos_embed|cannot be read"),
        ({"blocks__99999999__norm1__weight": torch.ones(WIDTH)}, "should have 100000000 blocks, and has"),
        ({"blocks__0__norm1__weight": torch.ones(WIDTH, dtype=torch.int32)}, "other type: .* is int32"),
        ({"blocks__0__norm1__weight": torch.ones(WIDTH, dtype=torch.bfloat16)}, "is bfloat16, most are float32"),
    ],
)  # fmt: skip
def test_tensors_that_no_network_has(tmp_path, capsys, changes, told):
    file = meta_file(tmp_path / "vit.pt", **changes)
    converted = ["convert", str(file), str(tmp_path / "to" / "x"), "--to", "native", *HEADS]
    for command in (["inspect", str(file)], converted):
        assert re.search(told, refused(command, capsys))
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"depth": 10**8}, "should have 100000000 blocks, and has"),
        ({"embed_dim": 0}, "embed_dim is 0. Give a whole number of at least 1"),
        ({"num_heads": True}, "num_heads is True"),
        ({"num_heads": 7}, "must be divisible by num_heads 7. Give"),
        ({"mlp_ratio": math.nan}, "mlp_ratio is nan. Give a number"),
        ({"drop_path": -1.0}, "drop_path is -1"),
    ],
)
def test_descriptions_of_no_network(tmp_path, capsys, arguments, told):
    folder = tiny_encoder().save_pretrained(tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    config["encoder"] |= arguments
    (folder / "config.json").write_text(json.dumps(config))
    assert re.search(told, refused(["inspect", str(folder)], capsys))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"vjepa": None, "state_dict": {}}, "damaged checkpoint of a run"),
        ({"vjepa": {"encoder": {}}, "state_dict": {}}, "holds no network"),
        ({"classifiers": []}, "holds no probe"),
        ({"encoder": {3: torch.zeros(1)}}, "does not hold only tensors by name"),
    ],
)
def test_files_of_nothing(tmp_path, capsys, content, told):
    torch.save(content, tmp_path / "x.ckpt")
    assert told in refused(["inspect", str(tmp_path / "x.ckpt")], capsys)


def test_a_pipe_and_a_place_that_is_taken(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refused(["inspect", str(tmp_path / "pipe")], capsys)
    source = str(tiny_encoder().save_pretrained(tmp_path / "net"))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for taken in ("pipe", "dangling"):
        assert "exists already" in refused(["convert", source, str(tmp_path / taken), "--to", "meta"], capsys)
    assert "cannot be written" in refused(
        ["convert", source, str(tmp_path / ("n" * 300)), "--to", "meta"], capsys
    )
    (tmp_path / "file").write_text("")
    assert refused(["convert", source, str(tmp_path / "file" / "x"), "--to", "native"], capsys)


def test_other_classes_are_named_and_not_run(tmp_path):
    torch.save({"encoder": {}, "args": argparse.Namespace(a=1)}, tmp_path / "args.pt")
    with pytest.raises(
        CheckpointError, match="holds argparse.Namespace, which is neither a tensor nor"
    ) as caught:
        vjepa.load_encoder(tmp_path / "args.pt")
    assert "weights_only" not in str(caught.value)


def test_encoders_of_two_builds(tmp_path, capsys):
    content = training_file(tmp_path / "x.pt")
    content["encoder"] = prefixed(tiny_encoder(1, depth=3).state_dict())
    torch.save(content, tmp_path / "x.pt")
    assert "its two encoders differ" in refused(["inspect", str(tmp_path / "x.pt")], capsys)
    assert vjepa.load_encoder(tmp_path / "x.pt", num_heads=2, which="context").config["depth"] == 3


def test_half_of_an_encoder_in_another_type(tmp_path):
    folder = save_huggingface(tmp_path / "hf", tiny_encoder())
    tensors = load_file(folder / "model.safetensors")
    key = "encoder.layer.1.attention.query.weight"
    save_file(tensors | {key: tensors[key].bfloat16()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="other type: .*query.weight is torch.bfloat16"):
        vjepa.load_encoder(folder)
    save_file({"bert." + k: v for k, v in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds no network that we know, but bert"):
        vjepa.load_encoder(folder)


def test_a_predictor_without_mask_tokens(tmp_path):
    state = {k: v for k, v in tiny_predictor().state_dict().items() if "mask_token" not in k}
    torch.save({"predictor": state}, tmp_path / "p.pt")
    with pytest.raises(CheckpointError, match="missing: mask_tokens.0"):
        vjepa.load_predictor(tmp_path / "p.pt", num_heads=2)


def test_weights_that_are_no_numbers_are_told(tmp_path, caplog):
    encoder, predictor = tiny_encoder(), tiny_predictor()
    torch.nn.init.constant_(predictor.predictor_proj.weight, math.nan)
    folder = save_folder(tmp_path / "net", encoder, predictor=predictor)
    figures = inspect(ckpt=folder).figures
    assert figures["finite"] and not figures["predictor_finite"]
    figures = convert(src=str(folder), dst=tmp_path / "there", to="native", allow_nonfinite=True).figures
    assert math.isnan(figures["max_abs_difference"]) and "predictor's outputs are not finite" in caplog.text


def test_weights_that_are_no_numbers_are_refused(tmp_path, capsys):
    encoder = tiny_encoder()
    with torch.no_grad():
        encoder.blocks[1].attn.qkv.weight[0, 0] = math.inf
        encoder.norm.weight.fill_(3e38)  # finite, though its sum is not
    folder = save_folder(tmp_path / "net", encoder, predictor=tiny_predictor())
    told = "NaN or infinite numbers in blocks.1.attn.qkv.weight of its VideoEncoder"
    with pytest.raises(CheckpointError, match=told):
        vjepa.load_encoder(folder)
    assert told in refused(["convert", str(folder), str(tmp_path / "there"), "--to", "native"], capsys)
    assert not (tmp_path / "there").exists() and vjepa.load_predictor(folder)
    assert vjepa.load_encoder(folder, allow_nonfinite=True).blocks[1].attn.qkv.weight[0, 0] == math.inf


def test_a_compressed_file_is_refused(tmp_path, capsys):
    training_file(tmp_path / "whole.pt")
    packed, again = tmp_path / "packed.pt", tmp_path / "again.pt"
    for source, target, kind in (
        (tmp_path / "whole.pt", packed, zipfile.ZIP_DEFLATED),
        (packed, again, zipfile.ZIP_STORED),  # the advice of the error
    ):
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", kind) as new:
            for part in old.infolist():
                new.writestr(part.filename, old.read(part))
    for command in (["inspect", str(packed)], ["convert", str(packed), str(tmp_path / "x"), "--to", "meta"]):
        assert "packed.pt is a compressed zip" in refused(command, capsys)
    whole, unpacked = (vjepa.load_encoder(file, num_heads=2) for file in (tmp_path / "whole.pt", again))
    assert_same_bytes(whole.state_dict(), unpacked.state_dict())


def test_an_altered_weight_is_not_let_through(tmp_path, monkeypatch):
    folder = tiny_encoder().save_pretrained(tmp_path / "net")

    def write(contents, place):
        contents.tensors["encoder"]["norm.bias"] = contents.tensors["encoder"]["norm.bias"] + 1e-7
        save_native(contents, place)

    module = importlib.import_module("vjepa.checkpoints.conversion")
    save_native = module.write_native
    monkeypatch.setattr(module, "write_native", write)
    with pytest.raises(CheckpointError, match="encoder is not the same after conversion: norm.bias changed"):
        convert(src=str(folder), dst=tmp_path / "new" / "there", to="native")
    assert not (tmp_path / "new").exists()


def test_one_of_several_probes(tmp_path, capsys):
    state = prefixed(tiny_probe().state_dict(), "module.")
    torch.save({"classifiers": [state, {k: v + 1 for k, v in state.items()}]}, tmp_path / "p.pt")
    assert inspect(ckpt=tmp_path / "p.pt").figures["num_probes"] == 2
    command = [
        "convert",
        str(tmp_path / "p.pt"),
        str(tmp_path / "x"),
        "--to",
        "native",
        "--probe_num_heads",
        "4",
    ]
    assert "Say which with index=0" in refused(command, capsys)
    assert main([*command, "--index", "1"]) == 0
    bias = vjepa.load_probe(tmp_path / "x").linear.bias
    assert torch.equal(bias, state["module.linear.bias"] + 1)


def test_an_encoder_is_not_saved_among_others(tmp_path):
    folder = save_folder(tmp_path / "net", tiny_encoder(), predictor=tiny_predictor())
    with pytest.raises(ValueError, match="predictor.safetensors, which would be taken.*Give another folder"):
        tiny_encoder().save_pretrained(folder)
    alone = tiny_encoder().save_pretrained(tmp_path / "alone")
    assert tiny_encoder(1).save_pretrained(alone) == alone


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"num_head": 3}, "no argument 'num_head'. The nearest is 'num_heads'"),
        ({"allow_missing": "norm.bias"}, "Give a list of keys"),
        ({"num_heads": 0}, "num_heads is 0"),
    ],
)
def test_wrong_keywords(tmp_path, given, told):
    folder = tiny_encoder().save_pretrained(tmp_path / "net")
    with pytest.raises(ValueError, match=told):
        vjepa.load_encoder(folder, **given)


def test_files_of_one_network_alone(tmp_path):
    folder = tiny_encoder().save_pretrained(tmp_path / "net")
    with pytest.raises(CheckpointError, match="Give the folder it lies in"):
        vjepa.load_encoder(folder / "encoder.safetensors")
    with pytest.raises(ValueError, match="no network to write"):
        save_meta(tmp_path / "e.pt")
    config = json.loads((folder / "config.json").read_text()) | {"format": 99}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="has format 99.*Update vjepa"):
        vjepa.load_encoder(folder)


@pytest.mark.parametrize("verb", ["load", "convert", "inspect"])
def test_a_folder_cannot_trust_its_own_class(tmp_path, monkeypatch, verb):
    folder = tmp_path / "probe"
    folder.mkdir()
    (tmp_path / "planted_probe.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = {"class_path": "planted_probe.Thing", "trusted": "planted_probe.Thing"}
    (folder / "config.json").write_text(json.dumps({"probe": arguments}))
    save_file({"weight": torch.zeros(1)}, folder / "probe.safetensors")
    if verb == "load":
        with pytest.raises((CheckpointError, ProbeError), match=r"--probe_class planted_probe\.Thing"):
            vjepa.load_probe(folder)
    elif verb == "convert":
        assert main(["convert", str(folder), str(tmp_path / "to"), "--to", "native"]) == 2
    else:
        assert main(["inspect", str(folder)]) == 0
    assert not (tmp_path / "ran").exists()
