"""What a fit and a probe say of an accuracy, in words."""

import pytest
import torch

from vjepa.probes import LinearProbe
from vjepa.probes.comparison import accuracy_in_words, compared_in_words
from vjepa.probes.results import ProbeResult, scores_of


def result(num_right: int, num_clips: int) -> ProbeResult:
    """A probe of ten classes that is right on some clips."""
    labels = torch.arange(num_clips) % 10
    guesses = torch.where(torch.arange(num_clips) < num_right, labels, (labels + 1) % 10)
    scores = scores_of(torch.nn.functional.one_hot(guesses, 10).float(), labels)
    probe = LinearProbe(embed_dim=4, num_classes=10)
    return ProbeResult(
        kind="linear", scores=scores, converged=True, history=(), settings={}, num_train=1,
        num_val=num_clips, probe=probe,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("trained", "random_init", "num_clips", "told"),
    [
        (
            390,
            220,
            1000,
            "beats random init by 17 points: 39.0 % (36 to 42) against 22.0 % (20 to 25), chance",
        ),
        (220, 390, 1000, "is worse than random init by 17 points"),
        (225, 220, 1000, "is not better than random init: 22.5 %"),
        (
            8,
            5,
            20,
            "is not distinguishable from random init: too few clips to tell less than 29 points: 40.0 %",
        ),
        (20, 2, 20, "beats random init by 90 points"),
    ],
)
def test_the_result_in_words(trained, random_init, num_clips, told):
    words = compared_in_words(result(trained, num_clips), result(random_init, num_clips))
    assert words.startswith(told) and words.endswith(f"chance 10.0 %, {num_clips} clips")


def test_an_accuracy_has_its_interval():
    assert accuracy_in_words(result(50, 100)) == "50.0 % (40 to 60)"
