"""Folders of transformers': the published outputs, shards, and what they cannot say."""

import json

import pytest
import torch

import vjepa
from tests.checkpoints.given import (
    assert_same_bytes,
    case_weights,
    hf_case,
    hf_folder,
    tiny_encoder,
    tiny_predictor,
    tiny_probe,
)
from tests.reference import reference_json
from vjepa.checkpoints import CheckpointError, save_huggingface
from vjepa.checkpoints.hf_names import STACKED, their_rows
from vjepa.checkpoints.load import open_checkpoint
from vjepa.checkpoints.shards import INDEX


@pytest.mark.parametrize("shards", [1, 3])
@torch.no_grad()
def test_published_outputs(tmp_path, shards):
    case, folder = hf_case(tmp_path / "hf", "hf_vjepa2_model", shards=shards, patch_size=[8, 8])
    encoder, predictor = vjepa.load_encoder(folder), vjepa.load_predictor(folder)
    video = case.tensors["in.pixel_values_videos"].transpose(1, 2)
    tokens = encoder(video)
    case.assert_close(tokens, "out.skip.last_hidden_state")
    grid, everything = encoder.grid_of(video), torch.arange(64).expand(2, -1)
    options = {"grid": grid, "mask_token": 1}
    case.assert_close(
        predictor(tokens, everything, everything, **options), "out.default.predictor_last_hidden_state"
    )
    context, target = case.tensors["in.context_mask"], case.tensors["in.target_mask"]
    seen = tokens.gather(
        1, context[..., None].expand(-1, -1, 40)
    )  # theirs are encoded beside the hidden ones
    case.assert_close(predictor(seen, context, target, **options), "out.masked.predictor_last_hidden_state")


@torch.no_grad()
def test_published_classifier(tmp_path):
    case, folder = hf_case(tmp_path / "hf", "hf_vjepa2_classification")
    encoder, probe = vjepa.load_encoder(folder), vjepa.load_probe(folder)
    logits = probe(encoder(case.tensors["in.pixel_values_videos"].transpose(1, 2)))
    case.assert_close(logits, "out.logits_meta_eps1e-5")
    assert vjepa.load_predictor(folder).num_heads == 2


def test_published_names():
    names = reference_json("meta_hf_key_list.json")
    for kind, meta, hf in (
        ("encoder", "meta_encoder", "hf_model"),
        ("predictor", "meta_predictor", "hf_model"),
        ("probe", "meta_classifier", "hf_classification"),
    ):
        for key, shape in names[meta].items():
            for theirs, rows in their_rows(kind, key, torch.zeros(shape)):
                assert list(rows.shape) == names[hf][theirs], (key, theirs)


@torch.no_grad()
def test_written_folders_are_read_back(tmp_path, caplog):
    encoder, predictor, probe = tiny_encoder(), tiny_predictor(num_mask_tokens=11), tiny_probe()
    folder = save_huggingface(tmp_path / "hf", encoder, predictor=predictor, probe=probe)
    assert_same_bytes(vjepa.load_encoder(folder).state_dict(), encoder.state_dict())
    assert_same_bytes(vjepa.load_predictor(folder).state_dict(), predictor.state_dict())
    loaded = vjepa.load_probe(folder)
    assert_same_bytes(loaded.state_dict(), probe.state_dict())
    assert loaded.config == probe.config and vjepa.load_encoder(folder).config == encoder.config
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["VJEPA2ForVideoClassification"] and config["num_pooler_layers"] == 3
    assert config["crop_size"] == 32 and len(config["id2label"]) == 5 and config["dtype"] == "float32"
    for warning in ("encoder's 2 heads; the probe has 4", "epsilon of 1e-6", "crop_size=32", "Diving48"):
        assert warning in caplog.text
    with pytest.raises(CheckpointError, match="has no context_encoder; it holds encoder, predictor, probe"):
        vjepa.load_encoder(folder, which="context")


def test_what_is_absent_is_warned_of(tmp_path, caplog):
    save_huggingface(tmp_path / "probe", probe=tiny_probe())
    assert "no encoder: transformers would make a random one" in caplog.text
    save_huggingface(tmp_path / "encoder", tiny_encoder())
    assert "no predictor: transformers would make a random one" in caplog.text
    with pytest.raises(CheckpointError, match="has no predictor"):
        vjepa.load_predictor(tmp_path / "encoder")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"position": "sincos"}, "has no other positions; the encoder has position='sincos'. Convert to"),
        ({"position": "rope_interleaved"}, "has no other positions"),
        ({"img_size": (32, 16)}, "in a square grid; img_size is \\(32, 16\\)"),
    ],
)
def test_what_it_cannot_be_is_refused(tmp_path, arguments, reason):
    with pytest.raises(CheckpointError, match=reason):
        save_huggingface(tmp_path / "hf", tiny_encoder(**arguments))
    assert not (tmp_path / "hf").exists()
    wide = tiny_encoder(embed_dim=48)
    with pytest.raises(CheckpointError, match="Give the encoder the probe was trained on"):
        save_huggingface(tmp_path / "hf", wide, probe=tiny_probe())


def test_a_probe_of_a_published_width_has_sixteen_heads(tmp_path):
    tensors = {"pooler.query_tokens": torch.zeros(1, 1, 1408), "classifier.weight": torch.zeros(3, 1408)}
    config = {"hidden_size": 1408, "num_attention_heads": 22}
    folder = hf_folder(tmp_path / "hf", tensors, **config)
    assert open_checkpoint(folder).arguments("probe", {})["num_heads"] == 16


def test_other_networks_are_refused_by_their_config(tmp_path):
    weights = case_weights("hf_vjepa2_model")
    folder = hf_folder(tmp_path / "hf", weights, hidden_act="gelu_new")
    with pytest.raises(CheckpointError, match="hidden_act is 'gelu_new'; V-JEPA 2's networks have 'gelu'"):
        vjepa.load_encoder(folder)


def test_keys_that_do_not_fit(tmp_path):
    case, folder = hf_case(tmp_path / "hf", "hf_vjepa2_model")
    config, weights = case.about["ctor"]["VJEPA2Config"], case_weights("hf_vjepa2_model")
    key = "encoder.layer.1.attention.key.weight"
    cut = {k: v for k, v in weights.items() if k != key}
    with pytest.raises(CheckpointError, match=f"incomplete: missing: {key}"):
        vjepa.load_encoder(hf_folder(tmp_path / "cut", cut, **config))
    assert vjepa.load_predictor(tmp_path / "cut").embed_dim == 36  # the predictor is whole
    renamed = {k.replace("layer.1.norm1", "layer.1.normX"): v for k, v in weights.items()}
    with pytest.raises(CheckpointError, match="missing: blocks.1.norm1.*not expected: encoder.layer.1.normX"):
        vjepa.load_encoder(hf_folder(tmp_path / "renamed", renamed, **config))
    stray = weights | {"head.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="not expected: head.weight"):
        vjepa.load_encoder(hf_folder(tmp_path / "stray", stray, **config))
    short = weights | {key: torch.zeros(20, 40)}
    with pytest.raises(CheckpointError, match=r"key.weight is \(20, 40\).*must be equal"):
        vjepa.load_encoder(hf_folder(tmp_path / "short", short, **config))
    with pytest.raises(CheckpointError, match="Give depth=2"):
        vjepa.load_encoder(folder, depth=3)
    fewer = weights | {STACKED: weights[STACKED][:3]}
    with pytest.raises(CheckpointError, match="missing: mask_tokens.3.*num_mask_tokens=3"):
        vjepa.load_predictor(hf_folder(tmp_path / "fewer", fewer, **config))
    some = vjepa.load_predictor(tmp_path / "fewer", allow_missing=["mask_tokens.3"])
    assert len(some.mask_tokens) == 4 and not some.mask_tokens[3].any()


def broken_shards(folder, kind):
    index = folder / INDEX
    content = json.loads(index.read_text())
    first, *_ = sorted(content["weight_map"])
    name = content["weight_map"][first]
    if kind == "a shard missing":
        (folder / name).unlink()
    elif kind == "a shard cut off":
        (folder / name).write_bytes((folder / name).read_bytes()[:-50])
    elif kind == "no JSON":
        index.write_text("{")
    elif kind == "no map":
        index.write_text("{}")
    elif kind == "a key in another shard":
        others = {value for value in content["weight_map"].values() if value != name}
        content["weight_map"][first] = sorted(others)[0]
        index.write_text(json.dumps(content))
    else:
        content["weight_map"][first] = "../" + name
        index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("a shard missing", "has no model-0000.-of-00003.safetensors, a shard"),
        ("a shard cut off", "is not a complete safetensors file"),
        ("no JSON", ":1:2: not JSON"),
        ("no map", "has no weight_map"),
        ("a key in another shard", "disagree about"),
        ("a way out", "is not a file of its folder"),
    ],
)
def test_broken_shards_are_named(tmp_path, kind, reason):
    _, folder = hf_case(tmp_path / "hf", "hf_vjepa2_model", shards=3)
    broken_shards(folder, kind)
    with pytest.raises(CheckpointError, match=reason):
        vjepa.load_encoder(folder)


def test_a_folder_without_weights_is_named(tmp_path):
    folder = hf_folder(tmp_path / "hf", {"x": torch.zeros(1)})
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match="it holds config.json, pytorch_model.bin. Save it with safetensors"
    ):
        vjepa.load_encoder(folder)
