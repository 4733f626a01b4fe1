"""What does not fit is told by module, with the keyword under which it would."""

import pytest
import torch

import vjepa
from tests.checkpoints.given import tiny_encoder, tiny_predictor, tiny_probe
from vjepa.checkpoints import CheckpointError
from vjepa.checkpoints.strict import fill, grouped, key_diff, keywords_that_fit
from vjepa.models import VideoEncoder


def test_numbered_modules_are_told_together():
    keys = [f"blocks.{i}.attn.qkv.bias" for i in (0, 1, 2, 5)] + ["mask_tokens.3", "norm.bias"]
    assert grouped(keys) == ["norm.bias", "blocks.0-2,5.attn.qkv.bias (4)", "mask_tokens.3"]
    whole = [f"blocks.{i}.{leaf}" for i in range(12) for leaf in ("a.weight", "a.bias", "b.weight")]
    assert grouped(whole) == ["blocks.0-11 (36 keys)"]


def test_shapes_that_are_wrong_alike_are_told_together():
    expected = {f"blocks.{i}.mlp.fc1.bias": torch.zeros(96) for i in range(3)}
    found = {k: torch.zeros(48) for k in expected}
    assert key_diff(expected, found) == ("other shape: blocks.0-2.mlp.fc1.bias (3) is (48,), expected (96,)")


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"depth": 3}, "depth=2"),
        ({"patch_size": 16}, "patch_size=8"),
        ({"tubelet_size": 4}, "tubelet_size=2"),
        ({"mlp_ratio": 2.0}, "mlp_ratio=4"),
        ({"embed_dim": 48}, "embed_dim=24"),
        ({"position": "sincos"}, "position='rope'"),
    ],
)
def test_the_keyword_that_explains_is_named_and_helps(tmp_path, wrong, hint):
    folder = tiny_encoder().save_pretrained(tmp_path / "native")
    with pytest.raises(CheckpointError, match=f"Give .*{hint}"):
        vjepa.load_encoder(folder, **wrong)
    name, value = hint.split("=")
    given = {name: value.strip("'") if name == "position" else type(wrong[name])(value)}
    assert vjepa.load_encoder(folder, **{**wrong, **given}).embed_dim == 24


def test_a_native_clip_of_another_size_is_explained():
    expected, found = (tiny_encoder(position="sincos", img_size=size).state_dict() for size in (32, 48))
    assert keywords_that_fit(expected, found) == ["img_size and num_frames"]


def test_predictors_and_probes_explain_themselves_too():
    for build, wrong, hint in (
        (tiny_predictor, {"num_mask_tokens": 3}, "num_mask_tokens=2"),
        (tiny_predictor, {"embed_dim": 32}, "embed_dim=16"),
        (tiny_probe, {"depth": 1}, "depth=4"),
    ):
        assert hint in keywords_that_fit(build(**wrong).state_dict(), build().state_dict())


def test_exceptions_are_named_one_by_one():
    predictor = tiny_predictor(num_mask_tokens=4)
    tensors = predictor.state_dict()
    del tensors["mask_tokens.3"]
    options = {"source": "file", "allow_missing": ["mask_tokens.3"]}
    filled = fill(vjepa.Predictor, predictor.config, tensors, **options)
    assert not filled.mask_tokens[3].any() and torch.equal(filled.mask_tokens[2], predictor.mask_tokens[2])
    with pytest.raises(CheckpointError, match="missing: mask_tokens.3"):
        fill(vjepa.Predictor, predictor.config, tensors, source="file")
    for wrong, reason in (("mask_tokens.1", "is not missing"), ("mask_tokens.9", "is not a key")):
        with pytest.raises(CheckpointError, match=f"allow_missing names {wrong}, which {reason}"):
            fill(
                vjepa.Predictor, predictor.config, tensors, source="f", allow_missing=[wrong, "mask_tokens.3"]
            )


def test_tensors_are_taken_and_not_copied():
    encoder = tiny_encoder()
    tensors = encoder.state_dict()
    filled = fill(VideoEncoder, encoder.config, tensors, source="memory")
    assert all(value.data_ptr() == tensors[key].data_ptr() for key, value in filled.state_dict().items())
