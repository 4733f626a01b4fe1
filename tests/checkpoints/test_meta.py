"""Files of Meta's: recognised by their entries, read strictly, written back to the bit."""

import pytest
import torch

import vjepa
from tests.checkpoints.given import (
    WIDTH,
    assert_same_bytes,
    case_weights,
    prefixed,
    tiny_encoder,
    tiny_predictor,
    tiny_probe,
    training_file,
)
from tests.reference import reference_case
from vjepa.checkpoints import CheckpointError, save_meta
from vjepa.layers import sincos_3d

GRID = vjepa.TokenGrid(t=4, h=4, w=4)


def saved(path, **entries):
    torch.save(entries, path)
    return path


@torch.no_grad()
def test_vjepa2_encoder_gives_the_published_outputs(tmp_path):
    case = reference_case("vjepa2_encoder_rope")
    file = saved(tmp_path / "vit.pt", target_encoder=prefixed(case_weights("vjepa2_encoder_rope")), epoch=3)
    encoder = vjepa.load_encoder(file, num_heads=2)
    assert encoder.position == "rope" and encoder.config["patch_size"] == 8
    case.assert_close(encoder(case.tensors["in.x"]), "out.full")
    case.assert_close(encoder(case.tensors["in.x_nonsquare"]), "out.nonsquare")


@pytest.mark.parametrize("prefix", ["module.backbone.", "module.", "backbone.", ""])
@torch.no_grad()
def test_vjepa1_encoder_and_predictor(tmp_path, prefix):
    case, predicted = reference_case("vjepa1_encoder"), reference_case("vjepa1_predictor")
    file = saved(
        tmp_path / "vit.pth.tar",
        target_encoder=prefixed(case_weights("vjepa1_encoder"), prefix),
        predictor=prefixed(case_weights("vjepa1_predictor"), prefix),
    )
    encoder, predictor = (load(file, num_heads=2) for load in (vjepa.load_encoder, vjepa.load_predictor))
    assert (encoder.position, encoder.config["img_size"], encoder.config["num_frames"]) == ("sincos", 32, 8)
    case.assert_close(encoder(case.tensors["in.x"]), "out.full")
    case.assert_close(encoder(case.tensors["in.x_nonnative"]), "out.nonnative")
    ids = [predicted.tensors[f"in.mask_{name}0"] for name in ("enc", "pred")]
    context = predicted.tensors["in.ctx0"]
    predicted.assert_close(predictor(context, *ids, grid=GRID, mask_token=0), "out.pred0")


@torch.no_grad()
def test_vjepa1_image_encoder(tmp_path):
    case = reference_case("vjepa1_image_encoder")
    file = saved(tmp_path / "vit.pt", encoder=case_weights("vjepa1_image_encoder"))
    encoder = vjepa.load_encoder(file, num_heads=2)
    assert (encoder.config["num_frames"], encoder.config["img_size"]) == (1, 32)
    case.assert_close(encoder(case.tensors["in.x"][:, :, None]), "out.full")
    back = save_meta(tmp_path / "back.pt", context_encoder=encoder)
    written = torch.load(back, weights_only=True)["encoder"]
    assert_same_bytes(written, prefixed(case_weights("vjepa1_image_encoder")))


@torch.no_grad()
def test_vjepa2_encoder_with_a_table_and_vjepa2_predictor(tmp_path):
    sincos, rope = reference_case("vjepa2_encoder_sincos"), reference_case("vjepa2_predictor_rope")
    file = saved(tmp_path / "a.pt", ema_encoder=case_weights("vjepa2_encoder_sincos"))
    encoder = vjepa.load_encoder(file, num_heads=sincos.about["ctor"]["num_heads"], position="sincos_first")
    sincos.assert_close(encoder(sincos.tensors["in.x"]), "out.full")
    file = saved(tmp_path / "b.pt", predictor=prefixed(case_weights("vjepa2_predictor_rope")))
    predictor = vjepa.load_predictor(file, num_heads=3)
    tensors = [rope.tensors[f"in.{name}"] for name in ("ctx", "mask_ctx", "mask_tgt")]
    rope.assert_close(predictor(*tensors, grid=GRID, mask_token=1), "out.default")


@torch.no_grad()
def test_probes_of_both_versions(tmp_path):
    for name, entries in (
        ("attentive_probe_v1", lambda state: {"classifier": state}),
        ("attentive_probe_v2", lambda state: {"classifiers": [state]}),
    ):
        case = reference_case(name)
        file = saved(tmp_path / f"{name}.pt", **entries(prefixed(case_weights(name), "module.")), epoch=20)
        probe = vjepa.load_probe(file, num_heads=4)
        case.assert_close(probe(case.tensors["in.x"]), "out.logits")


def test_probes_trained_side_by_side_are_told_apart(tmp_path):
    states = [prefixed(tiny_probe().state_dict(), "module.") for _ in range(2)]
    states[1]["module.linear.bias"] = torch.ones(5)
    file = saved(tmp_path / "probes.pt", classifiers=states)
    with pytest.raises(CheckpointError, match="2 probes .* index=0 to index=1"):
        vjepa.load_probe(file, num_heads=4)
    assert vjepa.load_probe(file, num_heads=4, index=1).linear.bias.sum() == 5
    with pytest.raises(CheckpointError, match="no index=2"):
        vjepa.load_probe(file, index=2)


def test_a_file_of_both_versions_is_told_by_its_predictor(tmp_path):
    training_file(tmp_path / "train.pt")
    target = vjepa.load_encoder(tmp_path / "train.pt", num_heads=2)
    context = vjepa.load_encoder(tmp_path / "train.pt", num_heads=2, which="context")
    assert target.position == context.position == "rope" and "pos_embed" not in target.state_dict()
    assert torch.equal(target.norm.bias, tiny_encoder(2).norm.bias)
    assert torch.equal(context.norm.bias, tiny_encoder(1).norm.bias)
    assert vjepa.load_predictor(tmp_path / "train.pt", num_heads=2).position == "rope"


def test_a_table_at_a_size_of_vjepa2_without_a_predictor_is_not_guessed_about(tmp_path):
    state = tiny_encoder(position="sincos", img_size=128).state_dict()
    file = saved(tmp_path / "vit.pt", encoder=state)
    with pytest.raises(CheckpointError, match="Give position='sincos' or position='rope'"):
        vjepa.load_encoder(file, num_heads=2)
    added = vjepa.load_encoder(file, num_heads=2, position="sincos")
    turned = vjepa.load_encoder(file, num_heads=2, position="rope")
    assert torch.equal(added.pos_embed, state["pos_embed"]) and not hasattr(turned, "pos_embed")
    assert added.config["img_size"] == turned.config["img_size"] == 128
    assert added.config["num_frames"] == turned.config["num_frames"] == 4


def test_a_table_that_is_not_of_sines_is_refused(tmp_path):
    state = tiny_encoder(position="sincos_plain").state_dict()
    file = saved(tmp_path / "vit.pt", encoder=state)
    assert vjepa.load_encoder(file, num_heads=2).position == "sincos_plain"
    state["pos_embed"] = state["pos_embed"] + 0.01
    file = saved(tmp_path / "vit.pt", encoder=state)
    with pytest.raises(CheckpointError, match="does not match sincos, sincos_plain.* give position='rope'"):
        vjepa.load_encoder(file, num_heads=2)
    assert vjepa.load_encoder(file, num_heads=2, position="rope").position == "rope"


def test_which_encoder(tmp_path, caplog):
    file = saved(tmp_path / "hub.pt", encoder=tiny_encoder().state_dict())
    assert vjepa.load_encoder(file, num_heads=2).embed_dim == WIDTH
    assert "the encoder that was trained, but no moving average" in caplog.text
    with pytest.raises(CheckpointError, match="no `target_encoder` or `ema_encoder`; .*Give which='context'"):
        vjepa.load_encoder(file, which="target", num_heads=2)
    assert vjepa.load_encoder(file, which="context", num_heads=2).embed_dim == WIDTH
    with pytest.raises(CheckpointError, match="has no `predictor`; it holds encoder"):
        vjepa.load_predictor(file)
    with pytest.raises(CheckpointError, match="has no `classifier` or `classifiers`"):
        vjepa.load_probe(file)
    both = saved(tmp_path / "both.pt", target_encoder=tiny_encoder().state_dict(),
                 ema_encoder=tiny_encoder().state_dict())  # fmt: skip
    with pytest.raises(CheckpointError, match="both `target_encoder` and `ema_encoder`"):
        vjepa.load_encoder(both)


@pytest.mark.parametrize(("network", "load"), [
    (tiny_encoder, "load_encoder"), (tiny_predictor, "load_predictor"), (tiny_probe, "load_probe"),
])  # fmt: skip
def test_a_file_that_is_one_network(tmp_path, network, load):
    state = network().state_dict()
    torch.save(prefixed(state, "module."), tmp_path / "bare.pt")
    heads = 4 if load == "load_probe" else 2
    assert_same_bytes(getattr(vjepa, load)(tmp_path / "bare.pt", num_heads=heads).state_dict(), state)


def test_heads_that_cannot_be_told_are_asked_for(tmp_path):
    file = training_file(tmp_path / "train.pt") and tmp_path / "train.pt"
    with pytest.raises(
        CheckpointError, match=f"heads of the encoder, of width {WIDTH}.*Give num_heads=.* .--num_heads of"
    ):
        vjepa.load_encoder(file)


@pytest.mark.parametrize(("position", "width", "heads"), [("rope", 1408, 22), ("sincos", 1408, 16)])
def test_published_widths_tell_their_heads(tmp_path, position, width, heads):
    with torch.device("meta"):
        arguments = {"img_size": 16, "num_frames": 2, "embed_dim": width, "depth": 1, "num_heads": 1}
        state = vjepa.VideoEncoder(**arguments, position=position, mlp_ratio=48 / 11).state_dict()
    state = {k: torch.zeros(v.shape, dtype=torch.bfloat16) for k, v in state.items()}
    if position == "sincos":
        state["pos_embed"] = sincos_3d(vjepa.TokenGrid(t=1, h=1, w=1), width).float()[None]
    encoder = vjepa.load_encoder(saved(tmp_path / "vitg.pt", encoder=state))
    assert encoder.num_heads == heads and encoder.blocks[0].mlp.fc1.out_features == 6144


@torch.no_grad()
def test_written_files_are_read_back(tmp_path):
    encoder, predictor = tiny_encoder(position="sincos"), tiny_predictor(position="sincos")
    file = save_meta(tmp_path / "new.pt", encoder=encoder, predictor=predictor, probe=tiny_probe(1))
    content = torch.load(file, weights_only=True)
    assert content.keys() == {"target_encoder", "predictor", "classifier"}
    table = content["predictor"]["module.backbone.predictor_pos_embed"]
    assert table.shape == (1, 32, 16)
    assert vjepa.load_predictor(file, num_heads=2).position == "sincos"
    assert_same_bytes(vjepa.load_encoder(file, num_heads=2).state_dict(), encoder.state_dict())
    assert_same_bytes(vjepa.load_probe(file, num_heads=4).state_dict(), tiny_probe(1).state_dict())
    with pytest.raises(CheckpointError, match="is written with its encoder: give both"):
        save_meta(tmp_path / "half.pt", predictor=predictor)
    save_meta(tmp_path / "half.pt", encoder=encoder, predictor=predictor)


def test_lost_blocks_are_remarked_upon(tmp_path, caplog):
    encoder = vjepa.VideoEncoder(img_size=16, num_frames=2, embed_dim=192, depth=2, num_heads=3)
    file = save_meta(tmp_path / "vit.pt", encoder=encoder)
    vjepa.load_encoder(file, depth=2)
    assert not caplog.records
    vjepa.load_encoder(file)
    assert "2 blocks; published networks of width 192 have 12" in caplog.text
