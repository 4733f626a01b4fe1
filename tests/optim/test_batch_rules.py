"""Half-lives in clips, and learning rates that follow the batch."""

import pytest

from vjepa.optim import HalfLife, LrRule


@pytest.mark.parametrize("clips", [1, 16, 3072])
def test_a_half_life_forgets_the_same_at_any_batch(clips):
    half = HalfLife(samples=48_000.0)
    assert half.momentum(clips) ** (48_000 / clips) == pytest.approx(0.5)
    assert half.momentum(2 * clips) == pytest.approx(half.momentum(clips) ** 2)


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)])
def test_factors_of_the_learning_rate(scaling, factor):
    assert LrRule(reference_batch=256, scaling=scaling).factor(1024) == factor
    assert LrRule(reference_batch=1024, scaling=scaling).factor(1024) == 1.0


def test_wrong_numbers_are_refused_and_the_advice_holds():
    with pytest.raises(ValueError, match="Give a number of clips above 0, such as"):
        HalfLife(samples=0.0)
    HalfLife(samples=1.0e6)
    with pytest.raises(ValueError, match="Give the clips per step, at least 1"):
        LrRule(reference_batch=0)
    LrRule(reference_batch=1)
