"""Full batches of clips of which some cannot be read, without a video: what is readable is given."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vjepa.data.loading.batches import Group, PartBatches, Place
from vjepa.data.loading.failures import FailureLedger, TooManyUnreadableClipsError
from vjepa.data.loading.order import ClipOrder, occurrences, weighted_order
from vjepa.types import ClipBatch, ClipFailure

WEIGHTED = Path(__file__).parents[1] / "fixtures" / "weighted_sampler_v2.json"


def part_of(identities, *, batch_size=3, **options):
    order = ClipOrder(identities=np.array(identities, dtype=np.uint64), seed=0, **options)
    return PartBatches(order=order, batch_size=batch_size, ledger=FailureLedger(max_failures=1000))


def read(part, keys, broken) -> Group:
    """What a worker gives; the one pixel of a clip tells identity, epoch and draw."""
    names = [int(part.order.identities[key.index]) for key in keys]
    slots = tuple(i for i, name in enumerate(names) if name not in broken)
    pixels = [[names[i], keys[i].epoch, keys[i].draw] for i in slots]
    video = torch.tensor(pixels, dtype=torch.float32).reshape(len(slots), 3, 1, 1, 1)
    index = torch.tensor([keys[i].index for i in slots], dtype=torch.int64)
    failures = tuple(ClipFailure(f"{name}.mp4", "broken") for name in names if name in broken)
    return Group(ClipBatch(video=video, label=index, index=index, failures=failures), slots)


def batches_of(part, count, broken=frozenset(), ahead=0):
    """`count` batches, the reading being up to `ahead` groups ahead of what is given."""
    flying, given_batches = [], []
    while len(given_batches) < count:
        if (batch := part.take()) is not None:
            given_batches.append(batch)
            continue
        while len(flying) <= ahead:
            while not (keys := part.request()):
                part.plan()
            flying.append(keys)
        part.receive(read(part, flying.pop(0), broken))
    return given_batches


def names_of(batches):
    return [batch.video[:, :2].flatten(1).int().tolist() for batch in batches]


@settings(max_examples=20, deadline=None)
@given(
    broken=st.sets(st.integers(0, 29), max_size=20),
    batch_size=st.integers(1, 7),
    ahead=st.integers(0, 5),
)
def test_batches_are_those_of_a_manifest_without_the_broken_rows(broken, batch_size, ahead):
    clean = part_of(sorted(set(range(30)) - broken), batch_size=batch_size)
    torn = part_of(range(30), batch_size=batch_size)
    wanted = batches_of(clean, 12)
    got = batches_of(torn, 12, broken, ahead)
    assert names_of(got) == names_of(wanted)
    assert [batch.turn for batch in got] == [batch.turn for batch in wanted]
    assert {f"{name}.mp4" for name in broken} >= torn.ledger.reasons.keys()


def test_a_file_known_to_be_broken_is_not_tried_again():
    part = part_of(range(12), batch_size=4)
    asked = []
    ask = part.request

    def counted():
        keys = ask()
        asked.extend(keys)
        return keys

    part.request = counted
    batches_of(part, 9, {3, 7})
    tried = [(key.epoch, key.index) for key in asked if key.index in (3, 7)]
    assert sorted(index for _, index in tried) == [3, 7]


@pytest.mark.parametrize("stop", [1, 4, 7, 10])
@pytest.mark.parametrize("world_size", [1, 2])
def test_taken_up_at_any_place_the_batches_go_on(stop, world_size):
    broken = {2, 5, 11, 17, 18}
    options = {"batch_size": 2, "rank": world_size - 1, "world_size": world_size}
    whole = batches_of(part_of(range(20), **options), 14, broken, ahead=3)
    begun = part_of(range(20), **options)
    batches_of(begun, stop, broken, ahead=4)
    resumed = part_of(range(20), **options)
    resumed.failed = dict(begun.failed)
    resumed.go_to(Place(*begun.place))
    assert names_of(batches_of(resumed, 14 - stop, broken)) == names_of(whole[stop:])


def test_several_ranks_have_as_many_batches_whatever_fails():
    broken = {0, 1, 2, 3, 4}
    ranks = [part_of(range(23), rank=rank, world_size=2) for rank in range(2)]
    got = [batches_of(part, 9, broken, ahead=2) for part in ranks]
    assert (
        [b.turn for b in got[0]] == [b.turn for b in got[1]] == [(e, n) for e in range(3) for n in range(3)]
    )
    assert all(len(batch) == 3 for batches in got for batch in batches)
    assert not broken & {name for batches in got for clips in names_of(batches) for name, _ in clips}


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_together_have_the_same_clips_in_the_same_order(world_size):
    wanted = names_of(batches_of(part_of(range(50), batch_size=8), 14))
    ranks = [
        names_of(
            batches_of(part_of(range(50), batch_size=8 // world_size, rank=r, world_size=world_size), 14)
        )
        for r in range(world_size)
    ]
    together = [
        [clip for clips in zip(*step, strict=True) for clip in clips] for step in zip(*ranks, strict=True)
    ]
    assert together == wanted


def test_fewer_clips_than_a_batch_make_a_smaller_batch(caplog):
    with caplog.at_level("WARNING"):
        part = part_of(range(5), batch_size=4, world_size=2)
    assert "batches of 2" in caplog.text and (part.batch_size, part.per_epoch) == (2, 1)
    with pytest.raises(ValueError, match="Use fewer devices"):
        part_of(range(5), batch_size=4, world_size=6)
    assert part_of(range(5), batch_size=4, world_size=5).per_epoch == 1
    short = batches_of(part_of(range(5), batch_size=4), 3, {0, 1})
    assert [len(batch) for batch in short] == [3, 3, 3]
    assert [batch.turn for batch in short] == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize("world_size", [1, 2])
def test_without_a_readable_clip_the_run_stops(world_size):
    with pytest.raises(TooManyUnreadableClipsError, match="or none remains"):
        batches_of(part_of(range(6), world_size=world_size), 1, set(range(6)))
    with pytest.raises(TooManyUnreadableClipsError, match="among the first 66"):  # long before all were tried
        batches_of(part_of(range(600), world_size=world_size), 1, set(range(600)))


def test_failures_are_told_with_the_batch_they_were_found_for():
    batches = batches_of(part_of(range(9)), 3, {4})
    assert sum((batch.failures for batch in batches), ()) == (ClipFailure("4.mp4", "broken"),)


def test_weighted_order_is_the_published_one():
    case = json.loads(WEIGHTED.read_text())
    weights = np.concatenate(
        [np.full(n, w / n) for n, w in zip(case["datasets"], case["weights"], strict=True)]
    )
    order = weighted_order(weights, seed=0, epoch=case["epoch"])
    for rank in range(case["replicas"]):
        assert order[rank :: case["replicas"]].tolist() == case[f"rank{rank}"]


def test_weighted_rows_come_by_weight_each_time_with_another_clip():
    part = part_of(range(4), batch_size=4, weights=np.array([0.0, 1.0, 1.0, 6.0]))
    batches = batches_of(part, 500)
    names = np.array(names_of(batches))[..., 0].ravel()
    shares = np.bincount(names, minlength=4) / len(names)
    assert shares[0] == 0 and abs(shares - np.array([0, 1, 1, 6]) / 8).max() < 0.03
    for batch in batches:
        clips = [(int(name), int(draw)) for name, _, draw in batch.video.flatten(1).tolist()]
        assert len(set(clips)) == len(clips)


def test_occurrences_count_what_came_before():
    rows = np.random.default_rng(0).integers(0, 9, 200)
    assert occurrences(rows).tolist() == [rows[:i].tolist().count(row) for i, row in enumerate(rows)]
