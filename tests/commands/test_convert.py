"""`vjepa convert`: the same bytes and the same outputs, in any format; whole, or not at all."""

import json

import pytest
import torch
from safetensors.torch import load_file

import vjepa
from tests.checkpoints.given import (
    WIDTH,
    assert_same_bytes,
    convert,
    hf_case,
    prefixed,
    tiny_encoder,
    tiny_predictor,
    tiny_probe,
    training_file,
)
from vjepa.checkpoints import CheckpointError, save_folder, save_meta
from vjepa.commands.app import main

ROUNDING = 1e-6  # the same numbers at another alignment in memory may be summed in another order
HEADS = {"num_heads": 2, "predictor_num_heads": 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_networks_go_around_and_come_back_to_the_bit(tmp_path, dtype):
    original = training_file(tmp_path / "train.pt", dtype=dtype)
    places = [tmp_path / name for name in ("train.pt", "native", "hf", "native2", "back.pt")]
    for src, dst, to in zip(places[:-1], places[1:], ("native", "hf", "native", "meta"), strict=True):
        given = HEADS if src.suffix == ".pt" else {}
        figures = convert(src=str(src), dst=dst, to=to, **given).figures
        assert figures["max_abs_difference"] <= ROUNDING
    back = torch.load(places[-1], weights_only=True)
    assert back.keys() == {"encoder", "target_encoder", "predictor"}
    for entry, tensors in back.items():
        assert_same_bytes(tensors, original[entry])


@pytest.mark.parametrize("depth", [1, 4])
def test_a_probe_goes_around_and_comes_back_to_the_bit(tmp_path, depth):
    state = prefixed(tiny_probe(depth).state_dict(), "module.")
    if depth == 1:  # as V-JEPA 1's files: a projection that is never applied
        state["module.pooler.cross_attention_block.xattn.proj.weight"] = torch.randn(24, 24)
    entry, content = ("classifier", state) if depth == 1 else ("classifiers", [state])
    torch.save({entry: content, "epoch": 20}, tmp_path / "probe.pt")
    convert(src=str(tmp_path / "probe.pt"), dst=tmp_path / "native", to="native", probe_num_heads=4)
    convert(src=str(tmp_path / "native"), dst=tmp_path / "hf", to="hf")
    convert(src=str(tmp_path / "hf"), dst=tmp_path / "native2", to="native")
    report = convert(src=str(tmp_path / "native2"), dst=tmp_path / "back.pt", to="meta")
    assert [row["output"] for row in report.rows] == ["probe"]
    assert report.figures["max_abs_difference"] <= ROUNDING
    back = torch.load(tmp_path / "back.pt", weights_only=True)[entry]
    assert_same_bytes(back if depth == 1 else back[0], state)


@torch.no_grad()
def test_a_deep_probe_of_v_jepa_1_keeps_its_order(tmp_path):
    probe, tokens = tiny_probe(3, blocks_on="query", unused_proj=True), torch.randn(2, 6, WIDTH)
    save_meta(tmp_path / "v1.pt", probe=probe)
    state = torch.load(tmp_path / "v1.pt", weights_only=True)["classifier"]
    convert(src=str(tmp_path / "v1.pt"), dst=tmp_path / "native", to="native", probe_num_heads=4)
    convert(src=str(tmp_path / "native"), dst=tmp_path / "back.pt", to="meta")
    assert_same_bytes(torch.load(tmp_path / "back.pt", weights_only=True)["classifier"], state)
    config = json.loads((tmp_path / "native" / "config.json").read_text())
    assert config["probe"].pop("blocks_on") == "query"  # folders of before do not say it
    (tmp_path / "native" / "config.json").write_text(json.dumps(config))
    for place, heads in (("v1.pt", {"num_heads": 4}), ("native", {}), ("back.pt", {"num_heads": 4})):
        torch.testing.assert_close(vjepa.load_probe(tmp_path / place, **heads)(tokens), probe(tokens))
    with pytest.raises(
        CheckpointError, match="runs the blocks of its pooler on the tokens; the probe has blocks_on"
    ):
        convert(src=str(tmp_path / "native"), dst=tmp_path / "hf", to="hf")
    with pytest.raises(CheckpointError, match="Build it with unused_proj=True, or convert to native"):
        save_meta(tmp_path / "silent.pt", probe=tiny_probe(3, blocks_on="query"))


def test_a_probe_and_its_encoder_make_a_classifier(tmp_path):
    save_meta(tmp_path / "probe.pt", probe=tiny_probe())
    folder = save_folder(tmp_path / "native", tiny_encoder(), predictor=tiny_predictor())
    options = {"src": str(tmp_path / "probe.pt"), "to": "hf", "encoder": str(folder), "probe_num_heads": 4}
    report = convert(dst=tmp_path / "hf", **options)
    assert {row["output"] for row in report.rows} == {"encoder", "predictor", "probe"}
    assert any("heads" in warning for warning in report.figures["warnings"])
    keys = load_file(tmp_path / "hf" / "model.safetensors").keys()
    assert "vjepa2.encoder.layernorm.bias" in keys and "classifier.bias" in keys
    with pytest.raises(CheckpointError, match="both checkpoints hold the encoder. Drop --encoder"):
        convert(src=str(folder), dst=tmp_path / "twice", to="hf", encoder=str(folder))


def test_released_folders_become_native_and_meta(tmp_path):
    _, folder = hf_case(tmp_path / "hf", "hf_vjepa2_classification", shards=2)
    convert(src=str(folder), dst=tmp_path / "native", to="native")
    convert(src=str(tmp_path / "native"), dst=tmp_path / "hf2", to="hf")
    assert_same_bytes(
        load_file(tmp_path / "hf2" / "model.safetensors"),
        {k: v for shard in folder.glob("*.safetensors") for k, v in load_file(shard).items()},
    )
    convert(src=str(folder), dst=tmp_path / "meta.pt", to="meta")
    assert torch.load(tmp_path / "meta.pt", weights_only=True).keys() == {
        "target_encoder", "predictor", "classifiers",
    }  # fmt: skip


def test_what_weights_do_not_tell_is_given(tmp_path):
    state = tiny_encoder(position="sincos", img_size=128).state_dict()
    torch.save({"target_encoder": state}, tmp_path / "vit.pt")
    with pytest.raises(CheckpointError, match="position='sincos' or position='rope'"):
        convert(src=str(tmp_path / "vit.pt"), dst=tmp_path / "no", to="native")
    convert(src=str(tmp_path / "vit.pt"), dst=tmp_path / "a", to="native", num_heads=2, position="sincos")
    assert vjepa.load_encoder(tmp_path / "a").position == "sincos"
    torch.save({"target_encoder": tiny_encoder().state_dict()}, tmp_path / "rope.pt")
    clip = {"img_size": 48, "num_frames": 6}
    convert(src=str(tmp_path / "rope.pt"), dst=tmp_path / "b", to="native", num_heads=2, **clip)
    assert {k: vjepa.load_encoder(tmp_path / "b").config[k] for k in clip} == clip


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path):
    folder = save_folder(tmp_path / "native", tiny_encoder(position="sincos"))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="taken exists already. Give another path"):
        convert(src=str(folder), dst=taken, to="native")
    with pytest.raises(CheckpointError, match="Convert to native or meta"):
        convert(src=str(folder), dst=tmp_path / "hf", to="hf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="Give the name of a file"):
        convert(src=str(folder), dst=tmp_path / "empty", to="meta")
    convert(src=str(folder), dst=tmp_path / "empty", to="native")
    assert {p.name for p in tmp_path.iterdir()} == {"native", "taken", "empty"}
    assert (tmp_path / "empty").stat().st_mode & 0o055 == 0o055


def test_a_run_becomes_a_file_of_metas(tmp_path):
    encoder, predictor = tiny_encoder(), tiny_predictor()
    states = {"target_encoder": encoder, "context_encoder": encoder, "predictor": predictor}
    run = {
        "vjepa": {"format": 1, "encoder": encoder.config, "predictor": predictor.config},
        "state_dict": {
            f"objective.{part}.{k}": v for part, net in states.items() for k, v in net.state_dict().items()
        },
        "global_step": 7,
    }
    torch.save(run, tmp_path / "run.ckpt")
    assert main(["convert", str(tmp_path / "run.ckpt"), str(tmp_path / "run.pt"), "--to", "meta"]) == 0
    assert_same_bytes(
        vjepa.load_predictor(tmp_path / "run.pt", num_heads=2).state_dict(), predictor.state_dict()
    )


def test_on_the_command_line(tmp_path, capsys, caplog):
    training_file(tmp_path / "train.pt")
    heads = ["--num_heads", "2", "--predictor_num_heads", "2"]
    command = ["convert", str(tmp_path / "train.pt"), str(tmp_path / "hf"), "--to", "hf", *heads]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "max_abs_difference" in said.out and "context encoder is in" in caplog.text
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["max_abs_difference"] <= ROUNDING and result["left_out"] == ["opt", "scaler", "epoch", "lr"]
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command[:2], str(tmp_path / "x"), "--to", "onnx"]) == 2
    assert main(["convert", str(tmp_path / "train.pt")]) == 2


def test_untold_levels_mlps_and_grids_are_given(tmp_path):
    shape = {"num_heads": 2, "position": "rope_interpolated", "levels": (0, 2, 3)}
    state = prefixed(tiny_encoder(**shape, depth=4).state_dict())
    torch.save({"target_encoder": state}, tmp_path / "levels.pt")
    given = {"src": str(tmp_path / "levels.pt"), "to": "native", "num_heads": 2}
    with pytest.raises(CheckpointError, match="Give levels="):
        convert(dst=tmp_path / "no", **given)
    convert(dst=tmp_path / "levels", levels=[0, 2, 3], **given)
    assert vjepa.load_encoder(tmp_path / "levels").config["levels"] == (0, 2, 3)
    save_meta(tmp_path / "gated.pt", encoder=tiny_encoder(mlp="swiglu_full", mlp_ratio=4.0))
    gated = {"src": str(tmp_path / "gated.pt"), "to": "native", "num_heads": 2}
    for mlp in ("swiglu", "swiglu_full"):
        convert(dst=tmp_path / mlp, mlp=mlp, **gated)
        assert vjepa.load_encoder(tmp_path / mlp).config["mlp"] == mlp
    actions = vjepa.models.ActionPredictor(WIDTH, embed_dim=16, depth=1, num_heads=2)
    save_meta(tmp_path / "ac.pt", predictor=actions)
    sides = {"src": str(tmp_path / "ac.pt"), "to": "native", "predictor_num_heads": 2}
    convert(dst=tmp_path / "ac", grid_size=4, **sides)
    assert vjepa.load_predictor(tmp_path / "ac").grid_size == 4


def test_names_of_classes_go_along(tmp_path):
    names = {"id2label": {str(i): f"action {i}" for i in range(7)}}
    _, folder = hf_case(tmp_path / "hf", "hf_vjepa2_classification", **names)
    convert(src=str(folder), dst=tmp_path / "native", to="native")
    convert(src=str(tmp_path / "native"), dst=tmp_path / "hf2", to="hf")
    config = json.loads((tmp_path / "hf2" / "config.json").read_text())
    assert config["id2label"] == names["id2label"] and config["label2id"]["action 3"] == 3
