"""A probe's accuracy in words, beside that of the same probe at random init."""

from __future__ import annotations

import math

from vjepa.probes.results import ProbeResult

NORMAL_95 = 1.96  # standard errors that hold 95 % of a normal distribution
COARSE = 0.1  # a difference that so many clips cannot tell from chance leaves the question open


def accuracy_in_words(result: ProbeResult) -> str:
    """Return the top-1 accuracy and its interval, such as '38.0 % (34 to 42)'."""
    low, high = result.scores.interval
    return f"{100 * result.top1:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def compared_in_words(trained: ProbeResult, random_init: ProbeResult) -> str:
    """Return whether the trained encoder is better than random init, by how much, and of how many clips.

    The margin is that of 95 % for two accuracies on `num_val` clips each; a gain within it counts as no gain.
    """
    pair, num_clips = (trained, random_init), trained.num_val
    gain = trained.top1 - random_init.top1
    margin = NORMAL_95 * math.sqrt(sum(r.top1 * (1 - r.top1) for r in pair) / num_clips)
    if abs(gain) > margin:
        verb = "beats" if gain > 0 else "is worse than"
        outcome = f"{verb} random init by {100 * abs(gain):.0f} points"
    elif margin > COARSE:
        outcome = f"is not distinguishable from random init: too few clips to tell less than {100 * margin:.0f} points"
    else:
        outcome = "is not better than random init"
    numbers = " against ".join(accuracy_in_words(each) for each in pair)
    return f"{outcome}: {numbers}, chance {100 * trained.chance:.1f} %, {num_clips} clips"
