import pytest

from vjepa.errors import did_you_mean

KEYS = ["model", "model.depth", "model.mlp_ratio", "data", "data.num_clips", "data.root", "trainer.max_steps"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("data.num_clip", "data.num_clips"),
        ("modl.depth", "model"),  # the first part that leads nowhere
        ("num_clips", "data.num_clips"),  # the part before it forgotten
        ("model.max_steps", "trainer.max_steps"),  # the wrong part before it
        ("Data.root", "data"),
        ("depth", "model.depth"),
    ],
)
def test_nearest_name(written, meant):
    assert did_you_mean(written, KEYS) == meant


def test_nothing_is_nearest_to_nothing_known():
    assert did_you_mean("depth", []) is None


def test_some_name_is_always_given():
    assert did_you_mean("zzz", KEYS) in KEYS
