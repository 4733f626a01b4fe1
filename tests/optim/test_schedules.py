"""Schedules: every published value, and both ends."""

import pytest

from tests.reference import reference_json
from vjepa.optim import Constant, Cosine, Linear, WarmupCosine, WarmupStableDecay

PUBLISHED = reference_json("schedules.json")
SCHEDULES = {  # the schedule, the length of the run, and what its steps are counted from
    "vjepa1_lr": (WarmupCosine(start=2e-4, peak=6.25e-4, end=1e-6, warmup=12000.0, stretch=1.25), 90000, 1),
    "vjepa1_wd": (Cosine(start=0.04, end=0.4, stretch=1.25), 90000, 1),
    "vjepa1_momentum": (Linear(start=0.998, end=1.0, stretch=1.25), 90000, 0),
    "ijepa_lr": (WarmupCosine(start=2e-4, peak=1e-3, end=1e-6, warmup=50040.0), 375300, 1),
    "probe_v1_lr": (WarmupCosine(peak=1e-3, warmup=0.0), 2000, 1),
    "vjepa2_pretrain_lr_vitg": (
        WarmupCosine(start=1e-4, peak=5.25e-4, end=5.25e-4, warmup=12000.0),
        300000,
        1,
    ),
    "vjepa2_cooldown_lr": (WarmupStableDecay(peak=5.25e-4, end=1e-6, decay=1.0, stretch=1.25), 12000, 1),
    "vjepa2_ac_wsd_lr": (
        WarmupStableDecay(start=7.5e-5, peak=4.25e-4, warmup=4500.0, decay=4500.0),
        94500,
        1,
    ),
}
PAST_THE_END = {("vjepa2_cooldown_lr", "16000")}  # the reference goes negative there; ours stays at its end


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    schedule, total, first = SCHEDULES[name]
    for count, expected in PUBLISHED[name]["values"].items():
        if (name, count) not in PAST_THE_END:
            value = schedule.value(int(count) - first, total)
            assert value == pytest.approx(expected, rel=1e-9, abs=1e-15), count


def test_no_schedule_runs_past_its_end():
    for schedule, total, _ in SCHEDULES.values():
        at_end = schedule.value(2 * total, total)
        assert at_end == pytest.approx(schedule.value(10 * total, total), abs=1e-12)
    assert SCHEDULES["vjepa2_cooldown_lr"][0].value(15999, 12000) == pytest.approx(1e-6)


def test_runs_of_stretched_schedules_finish_at_four_fifths():
    for name, expected in {"vjepa1_lr": 7.504e-5, "vjepa1_wd": 0.3656, "vjepa1_momentum": 0.9996}.items():
        schedule, total, _ = SCHEDULES[name]
        assert schedule.value(total - 1, total) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [
        (Constant(at=0.3), 0.3, 0.3),
        (Linear(start=1.0, end=0.0), 1.0, 0.01),
        (Cosine(start=1.0, end=0.0), 1.0, 0.0),
        (WarmupCosine(start=0.0, peak=1.0, end=0.2, warmup=10.0), 0.1, 0.2),
        (WarmupCosine(start=0.0, peak=1.0, end=0.2, warmup=0.1), 0.1, 0.2),
        (WarmupStableDecay(peak=1.0, end=0.2, warmup=0.1, decay=0.2), 0.1, 0.2),
    ],
)
def test_both_ends(schedule, first, last):
    assert schedule.value(0, 100) == pytest.approx(first, abs=1e-3)
    assert schedule.value(99, 100) == pytest.approx(last, abs=1e-3)


def test_warmup_reaches_the_peak_at_its_end():
    for schedule in (
        WarmupCosine(peak=1.0, warmup=0.25),
        WarmupStableDecay(peak=1.0, warmup=25.0, decay=0.5),
    ):
        values = [schedule.value(step, 100) for step in range(100)]
        assert max(values) == values[24] == 1.0
    assert values[49] == 1.0 > values[50]  # stable until the decay begins


@pytest.mark.parametrize(
    "make",
    [
        lambda: WarmupCosine(peak=1.0, warmup=-1.0),
        lambda: WarmupStableDecay(peak=1.0, decay=-0.1),
        lambda: Linear(start=1.0, end=0.0, stretch=0.0),
        lambda: Cosine(start=1.0, end=0.0, stretch=float("nan")),
    ],
)
def test_lengths_below_zero_are_refused(make):
    with pytest.raises(ValueError, match="of the run"):
        make()


def test_a_wave_shorter_than_a_step_is_at_its_end():
    assert Cosine(start=1.0, end=0.25, stretch=0.01).value(0, 10) == 0.25
