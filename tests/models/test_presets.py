"""Published sizes: weights counted, names matched."""

import time

import pytest
import torch

import vjepa
from vjepa.models import SIZES, create_model, list_models

# of V-JEPA 2.1 beside V-JEPA 2's, a channel: the patch embedding of images, two vectors, three more norms
BESIDE_21 = (3 * 16 * 16 + 1) + 2 + 3 * 2
COUNTS = {  # 3-D patches of 2 x 16 x 16, positions not counted
    "vit_tiny": 5_633_856,
    "vit_small": 21_884_544,
    "vit_base": 86_236_416,
    "vit_large": 303_885_312,
    "vit_huge": 631_648_000,
    "vit_giant": 1_012_173_952,
    "vit_giant_xformers": 1_012_173_952,
    "vit_gigantic": 1.598e9,
    "vit_gigantic_xformers": 1.598e9,
    "vit_base_vjepa21": 86_236_416 + 768 * BESIDE_21,
    "vit_large_vjepa21": 303_885_312 + 1024 * BESIDE_21,
    "vit_giant_vjepa21": 1_012_173_952 + 1408 * BESIDE_21,
    "vit_gigantic_vjepa21": 1.844e9,
}


@pytest.mark.parametrize("position", ["rope", "sincos"])
@pytest.mark.parametrize("size", SIZES)
def test_weights_of_each_size(size, position):
    with torch.device("meta"):
        encoder = create_model(f"{size}_patch16_224", num_frames=16, tubelet_size=2, position=position)
    exact = isinstance(COUNTS[size], int)
    assert encoder.num_parameters == (COUNTS[size] if exact else pytest.approx(COUNTS[size], rel=1e-3))


def test_vit_g_is_described_in_less_than_a_second():
    start = time.process_time()
    with torch.device("meta"):
        create_model("vit_giant_xformers_patch16_256")
    assert time.process_time() - start < 1.0


def test_sizes_of_vjepa21_have_their_levels_and_positions():
    with torch.device("meta"):
        encoder = create_model("vit_gigantic_vjepa21_patch16_384")
        small_patches = create_model("vit_base_vjepa21_patch14_224")
    assert encoder.levels == (11, 23, 37, 47) and encoder.blocks[0].mlp.fc1.out_features == 8192
    assert (encoder.position, encoder.side, small_patches.side) == ("rope_interpolated", 16, 18)


@pytest.mark.parametrize("size", ["vit_huge", "vit_giant"])
def test_image_encoders_have_flat_patches(size):
    with torch.device("meta"):
        encoder = create_model(f"{size}_patch14_224", num_frames=1, position="sincos_wh")
    assert encoder.num_parameters == COUNTS[size] - encoder.embed_dim * 3 * (2 * 16 * 16 - 14 * 14)


def test_names():
    assert "vit_large_patch16_256" in list_models("vit_large*")
    assert all(name.startswith("vit_large_") for name in list_models("vit_large_*"))
    assert len(list_models()) == len(set(list_models())) == 4 * len(SIZES)


def test_an_unknown_name_is_refused_and_the_advice_holds():
    with pytest.raises(ValueError, match="vit_tiny"):
        create_model("vit_enormous_patch16_224")
    encoder = create_model("vit_tiny_patch8_64", depth=1)
    assert encoder.config["patch_size"] == 8 and encoder.config["img_size"] == 64


def test_notebook_names_are_those_of_the_rooms():
    assert vjepa.create_model is create_model and vjepa.list_models is list_models
    assert {"load_encoder", "read_clip", "TokenGrid", "default_transform"} <= set(dir(vjepa))
    for name in vjepa.__all__:
        assert getattr(vjepa, name) is not None
    with pytest.raises(AttributeError, match="it has Predictor"):
        vjepa.no_such_name  # noqa: B018
