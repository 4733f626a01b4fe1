"""Other families in files of Meta's: I-JEPA, V-JEPA 2.1, 2-AC, intuitive physics, gated MLPs; and back to the bit."""

import pytest
import torch

import vjepa
from tests.checkpoints.given import (
    assert_same_bytes,
    case_weights,
    convert,
    prefixed,
    tiny_encoder,
    tiny_predictor,
)
from tests.reference import reference_case
from vjepa.checkpoints import CheckpointError, save_huggingface, save_meta
from vjepa.commands.inspect import inspect
from vjepa.layers import cross_masks
from vjepa.models import ActionPredictor

GRID = vjepa.TokenGrid(t=4, h=4, w=4)
IJEPA, V21, AC = "ijepa_encoder_predictor", "vjepa21_derived", "ac_predictor"
PHYSICS = "intuitive_physics_surprise"
PREFIXES = {IJEPA: "module.", AC: "module."}
ENTRIES = {"target": "target_encoder"}


def meta_file(folder, name: str):
    """A case as a file of Meta's; networks of several are told by the first part of their keys."""
    weights, prefix = case_weights(name), PREFIXES.get(name, "module.backbone.")
    parts = {key.split(".")[0] for key in weights} & {"encoder", "target", "predictor"}
    content = {
        ENTRIES.get(part, part): prefixed(
            {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(f"{part}.")}, prefix
        )
        for part in sorted(parts)
    }
    if not parts:
        content = {"predictor" if name == AC else "target_encoder": prefixed(weights, prefix)}
    torch.save(content, folder / "file.pt")
    return reference_case(name), folder / "file.pt", content


@torch.no_grad()
def test_a_gated_mlp_is_told_by_its_width(tmp_path):
    case, file, _ = meta_file(tmp_path, "vjepa2_encoder_swiglu_wide1")
    encoder = vjepa.load_encoder(file, num_heads=2)
    assert (encoder.config["mlp"], encoder.config["mlp_ratio"]) == ("swiglu", 4.0)
    case.assert_close(encoder(case.tensors["in.x"]), "out.full")
    full = vjepa.load_encoder(file, num_heads=2, mlp="swiglu_full")
    assert (full.config["mlp"], full.config["mlp_ratio"]) == ("swiglu_full", 88 / 32)


@pytest.mark.parametrize("mlp", ["swiglu", "swiglu_full"])
@pytest.mark.parametrize("ratio", [4.0, 48 / 11])
def test_published_ratios_of_gated_mlps(tmp_path, mlp, ratio):
    save_meta(tmp_path / "vit.pt", encoder=tiny_encoder(embed_dim=88, depth=1, mlp=mlp, mlp_ratio=ratio))
    found = vjepa.load_encoder(tmp_path / "vit.pt", num_heads=2).config
    assert (found["mlp"], found["mlp_ratio"]) == (mlp, ratio)


@torch.no_grad()
def test_ijepa(tmp_path):
    case, file, _ = meta_file(tmp_path, IJEPA)
    encoder, predictor = (load(file, num_heads=3) for load in (vjepa.load_encoder, vjepa.load_predictor))
    assert (encoder.position, predictor.position) == ("sincos_wh", "sincos_wh")
    assert (encoder.config["img_size"], encoder.config["num_frames"]) == (64, 1)
    images, seen = case.tensors["in.x"][:, :, None], case.tensors["in.mask_enc0"]
    pairs = cross_masks([seen], [case.tensors[f"in.mask_pred{i}"] for i in range(4)])
    case.assert_close(encoder(images), "out.full")
    context = encoder(images, keep=seen).repeat(4, 1, 1)
    case.assert_close(predictor(context, pairs.context, pairs.target, grid=encoder.native_grid), "out.pred")


def test_ijepa_in_memory_becomes_a_file_as_published(tmp_path):
    _, file, content = meta_file(tmp_path, IJEPA)
    encoder, predictor = (load(file, num_heads=3) for load in (vjepa.load_encoder, vjepa.load_predictor))
    save_meta(tmp_path / "new.pt", context_encoder=encoder, predictor=predictor)
    written = torch.load(tmp_path / "new.pt", weights_only=True)
    assert_same_bytes(written["encoder"], content["encoder"])
    table = written["predictor"].pop("module.predictor_pos_embed")
    torch.testing.assert_close(
        table, content["predictor"].pop("module.predictor_pos_embed"), atol=1e-7, rtol=0
    )
    assert_same_bytes(written["predictor"], content["predictor"])


@torch.no_grad()
def test_vjepa21(tmp_path):
    case, file, _ = meta_file(tmp_path, V21)
    encoder, predictor = (load(file, num_heads=2) for load in (vjepa.load_encoder, vjepa.load_predictor))
    assert encoder.levels == (2, 5, 8, 11) and encoder.position == "rope_interpolated"
    video, seen, hidden = (case.tensors[f"in.{k}"] for k in ("video", "mask_ctx", "mask_tgt"))
    case.assert_close(encoder(video), "out.video")
    case.assert_close(encoder(case.tensors["in.image"]), "out.image")
    context = torch.cat(encoder.forward_intermediates(video, encoder.levels, seen), dim=-1)
    case.assert_close(context, "out.video_masked_hier")
    predicted = predictor.forward_dense(context, seen, hidden, grid=encoder.grid_of(video), mask_token=1)
    case.assert_close(predicted[0], "out.pred")
    case.assert_close(predicted[1], "out.pred_context")


def test_levels_of_an_unpublished_depth_are_asked_for(tmp_path):
    encoder = tiny_encoder(depth=3, position="rope_interpolated", levels=(0, 2))
    file = save_meta(tmp_path / "vit.pt", encoder=encoder)
    with pytest.raises(CheckpointError, match=r"2 norms .* depth 3 .* Give levels="):
        vjepa.load_encoder(file, num_heads=2)
    assert vjepa.load_encoder(file, num_heads=2, levels=(0, 2)).levels == (0, 2)


@torch.no_grad()
def test_vjepa2_ac(tmp_path):
    case, file, _ = meta_file(tmp_path, AC)
    predictor = vjepa.load_predictor(file, num_heads=3, grid_size=4)
    assert isinstance(predictor, ActionPredictor) and predictor.config["extrinsics_dim"] == 6
    tensors = [case.tensors[f"in.{name}"] for name in ("tokens", "actions", "states")]
    case.assert_close(predictor(*tensors, grid=GRID), "out.full")


@torch.no_grad()
def test_intuitive_physics_tells_its_heads(tmp_path):
    case, file, _ = meta_file(tmp_path, PHYSICS)
    encoder, predictor = vjepa.load_encoder(file, which="context"), vjepa.load_predictor(file)
    assert (encoder.position, encoder.config["mlp"], encoder.num_heads) == ("rope_stored", "swiglu_full", 2)
    assert (predictor.position, predictor.config["mlp"], predictor.num_heads) == (
        "rope_stored",
        "swiglu_full",
        2,
    )
    clip = case.tensors["in.clip"][0]
    windows = torch.stack([clip[:, s : s + 8] for s in range(0, clip.shape[1] - 7, 2)])
    case.assert_close(encoder(windows[:1]), "out.encoder_full")
    frames = case.about["ctor"]["ctx"][0] // 2 * 16
    seen, hidden = torch.arange(64).expand(len(windows), -1).split([frames, 64 - frames], dim=1)
    predicted = predictor(encoder(windows, keep=seen), seen, hidden, grid=GRID)
    case.assert_close(predicted[:2], "out.pred_first_ctx")


@pytest.mark.parametrize(
    ("name", "heads", "family"),
    [(IJEPA, 3, "I-JEPA"), (V21, 2, "V-JEPA 2.1"), (AC, 3, None), (PHYSICS, 2, "intuitive physics")],
)
def test_there_and_back_to_the_bit(tmp_path, name, heads, family):
    _, file, content = meta_file(tmp_path, name)
    figures = inspect(ckpt=file).figures
    assert figures.get("family") == family and figures["predictor_parameters"] > 0
    assert ("mask_tokens" in figures) == (name != AC) == ("action_dim" not in figures)
    given = {"num_heads": heads, "predictor_num_heads": heads}
    convert(src=str(file), dst=tmp_path / "native", to="native", **given)
    assert isinstance(vjepa.load_predictor(tmp_path / "native"), ActionPredictor) == (name == AC)
    assert inspect(ckpt=tmp_path / "native").figures.get("family") == family
    convert(src=str(tmp_path / "native"), dst=tmp_path / "back.pt", to="meta")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == content.keys()
    for entry, tensors in back.items():
        assert_same_bytes(tensors, content[entry])
    with pytest.raises(CheckpointError, match="transformers' V-JEPA 2 .* Convert to native or meta"):
        convert(src=str(tmp_path / "native"), dst=tmp_path / "hf", to="hf")


def test_what_transformers_has_not_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="MLPs without a gate; the encoder has mlp='swiglu'"):
        save_huggingface(tmp_path, tiny_encoder(mlp="swiglu"))
    with pytest.raises(CheckpointError, match=r"one norm for all levels .* levels=\(1,\)"):
        save_huggingface(tmp_path, tiny_encoder(levels=(1,)))
    for arguments, reason in (
        ({"num_levels": 1}, "predicts one level"),
        ({"out_dim": 48}, "its own encoder"),
    ):
        with pytest.raises(CheckpointError, match=f"{reason}.*Convert to native or meta"):
            save_huggingface(tmp_path, tiny_encoder(), predictor=tiny_predictor(**arguments))
    with pytest.raises(CheckpointError, match="no predictor that takes actions; .* action_dim=7"):
        save_huggingface(tmp_path, predictor=ActionPredictor(24, embed_dim=24, depth=1, num_heads=2))
    assert not list(tmp_path.iterdir())


def test_a_distilled_predictor_tells_its_width_and_levels(tmp_path):
    for arguments in ({"num_levels": 1, "out_dim": 40}, {"num_levels": 2}):
        predictor = tiny_predictor(position="rope_interpolated", **arguments)
        file = save_meta(tmp_path / "new.pt", predictor=predictor)
        assert vjepa.load_predictor(file, num_heads=2).config == predictor.config
        turned = vjepa.load_predictor(file, num_heads=2, position="rope_interleaved")
        assert turned.position == "rope_interleaved"


def test_an_encoder_beside_a_predictor_that_is_told_actions(tmp_path):
    predictor = ActionPredictor(24, embed_dim=24, depth=1, num_heads=2)
    figures = inspect(ckpt=save_meta(tmp_path / "ac.pt", encoder=tiny_encoder(), predictor=predictor)).figures
    assert (figures["family"], figures["position"], figures["action_dim"]) == ("V-JEPA 2-AC", "rope", 7)
