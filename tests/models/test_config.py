"""Configs of networks: checked before anything is built, and what a checkpoint stores."""

from inspect import signature

import pytest

from vjepa.models import ActionPredictor, Predictor, VideoEncoder
from vjepa.models.config import Network, height_and_width

GOOD = VideoEncoder(depth=2, embed_dim=24, num_heads=2, drop_path=0.1).config


@pytest.mark.parametrize(
    "network", [VideoEncoder(depth=0), Predictor(192, depth=0), ActionPredictor(24, depth=0)]
)
def test_a_config_holds_the_arguments_of_the_constructor_in_their_order(network):
    assert list(network.config) == list(signature(type(network)).parameters)
    assert type(network)(**network.config).config == network.config


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"depth": "two"}, "depth is 'two'. Give a whole number of at least 0"),
        ({"depth": 10**6}, "depth is 1000000. Give at most"),
        ({"embed_dim": -24}, "embed_dim is -24. Give a whole number of at least 1"),
        ({"drop_path": "no"}, "drop_path is 'no'. Give a number"),
        ({"position": "nope"}, "position is 'nope'. Give one of .*rope"),
        ({"mlp": "nope"}, "mlp is 'nope'. Give one of gelu"),
        ({"num_heads": 5}, "num_heads 5. Give num_heads that divides it"),
    ],
)
def test_a_wrong_argument_is_named(wrong, told):
    encoder = VideoEncoder.__new__(VideoEncoder)
    with pytest.raises(ValueError, match=told):
        Network.__init__(encoder, **{**GOOD, **wrong})  # past the types that the tests check before


@pytest.mark.parametrize("size", [0, -1, [32], [32, 32, 32], "big", [32, 0], 3.5])
def test_a_size_is_two_numbers(size):
    with pytest.raises(ValueError, match="Give height and width"):
        height_and_width(size)
