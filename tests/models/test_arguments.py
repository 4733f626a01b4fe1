"""What the arguments of a network may be, said before it is built."""

import pytest

from vjepa.models.arguments import check_arguments, height_and_width

GOOD = {"embed_dim": 24, "depth": 2, "num_heads": 2, "drop_path": 0.1, "position": "rope", "mlp": "gelu"}


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
    parts = {"whole": ("embed_dim", "depth", "num_heads"), "numbers": ("drop_path",)}
    check_arguments(GOOD, **parts)
    with pytest.raises(ValueError, match=told):
        check_arguments(GOOD | wrong, **parts)


@pytest.mark.parametrize("size", [0, -1, [32], [32, 32, 32], "big", [32, 0], 3.5])
def test_a_size_is_two_numbers(size):
    with pytest.raises(ValueError, match="Give height and width"):
        height_and_width(size)
