"""Ids, clips and recall of EPIC-KITCHENS-100, as spec 6.5 has them."""

import doctest

import pytest
import torch

from vjepa.probes import ProbeError
from vjepa.probes.anticipation import ek100_annotations
from vjepa.probes.anticipation.ek100_annotations import (
    Action,
    ActionIds,
    anticipation_indices,
    class_mean_recall,
)


def test_ids_follow_the_order_of_a_set():
    train = [Action(v, n, 0, 1) for v, n in [(3, 70), (1, 2), (90, 2), (3, 2), (3, 70)]]
    ids = ActionIds.of(train)
    verbs, pairs = (
        [3, 1, 90, 3, 3],
        [(3, 70), (1, 2), (90, 2), (3, 2), (3, 70)],
    )  # a set of these, in this order
    assert list(ids.verbs) == list(set(verbs)) and list(ids.actions) == list(set(pairs))
    assert sorted(ids.actions.values()) == [0, 1, 2, 3]
    unseen = Action(1, 70, 0, 1)  # both words are known, the pair is not
    assert ids.known([*train, unseen]) == train
    labels = ids.labels(train)
    assert labels["action"][0] == labels["action"][4] and labels["verb"].tolist() == [
        ids.verbs[a.verb] for a in train
    ]
    with pytest.raises(ProbeError, match="Give EPIC_100_train.csv"):
        ActionIds.of([])


def test_clips_end_before_the_action():
    action = Action(0, 0, 600, 720)
    settings = {"seconds": 1.0, "fps_video": 60.0}
    found = anticipation_indices(action, point=0.0, **settings)
    assert len(found) == 32 and found[-1] == 720 - 60 - 7 and set((found[1:] - found[:-1]).tolist()) == {7}
    documented = anticipation_indices(action, point=0.0, relative_to="start", **settings)
    assert documented[-1] == 600 - 60 - 7
    assert anticipation_indices(action, point=0.25, **settings)[-1] == 690 - 60 - 7
    early = anticipation_indices(Action(0, 0, 60, 120), point=0.0, **settings)
    assert early[0] == 0 and early[-1] == 53
    assert len(anticipation_indices(action, point=0.0, num_frames=4, fps=30.0, **settings)) == 4
    with pytest.raises(ProbeError, match="Lower fps"):
        anticipation_indices(action, point=0.0, seconds=1.0, fps_video=5.0)
    anticipation_indices(action, point=0.0, seconds=1.0, fps_video=5.0, fps=5.0)


def test_recall_counts_every_class_alike():
    logits = torch.zeros(4, 10)
    logits[:, :5] = 1.0
    labels = torch.tensor([0, 0, 0, 9])
    assert class_mean_recall(logits, labels) == 0.5
    assert class_mean_recall(logits, labels, top=10) == 1.0


def test_examples():
    assert doctest.testmod(ek100_annotations).failed == 0
