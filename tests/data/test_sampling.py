import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vjepa.data.sampling import (
    ClipSampler,
    ShortVideoError,
    is_padded,
    reference_indices,
    reference_step,
    time_indices,
)

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("row", json.loads((FIXTURES / "frame_indices_v1.json").read_text()))
def test_reference_indices_match_vjepa1(row):
    draw = np.random.RandomState(row["np_seed"]).randint if row["random_clip_sampling"] else None
    got = reference_indices(
        row["num_video_frames"],
        row["frames_per_clip"],
        row["frame_step"],
        row["num_clips"],
        allow_overlap=row["allow_clip_overlap"],
        random_start=draw,
    )
    assert got.tolist() == row["clip_indices"]


@pytest.mark.parametrize("row", json.loads((FIXTURES / "frame_indices_v2.json").read_text()))
def test_reference_indices_match_vjepa2(row):
    if row["duration"] is not None:
        step = int(row["duration"] * math.ceil(row["video_fps"]) / row["frames_per_clip"])
    else:
        step = reference_step(row["video_fps"], float(row["fps"]))
    if "error" in row:
        assert step == 0
        timestamps = np.arange(row["num_video_frames"]) / row["video_fps"]
        with pytest.raises(ShortVideoError, match="Lower fps or set rule='time'"):
            ClipSampler(rule="reference", fps=float(row["fps"])).sample(timestamps, np.random.default_rng(0))
        ClipSampler(rule="time", fps=float(row["fps"])).sample(timestamps, np.random.default_rng(0))
        return
    draw = np.random.RandomState(row["np_seed"]).randint
    got = reference_indices(row["num_video_frames"], row["frames_per_clip"], step, random_start=draw)
    assert got.tolist() == row["clip_indices"]


def test_reference_sampler_follows_the_rule():
    timestamps = np.arange(300) * 1001 / 30000
    got = ClipSampler(rule="reference", fps=4.0, position="start").sample(
        timestamps, np.random.default_rng(0)
    )
    assert got.tolist() == reference_indices(300, 16, 7)[0].tolist()
    stepped = ClipSampler(rule="reference", fps=None, frame_step=4, position="random")
    starts = {int(stepped.sample(timestamps, np.random.default_rng(s))[0]) for s in range(50)}
    assert len(starts) > 20 and max(starts) < 300 - 64


def test_four_fps_from_25_is_four_on_average():
    got = ClipSampler(num_frames=41, fps=4.0, position="start").sample(
        np.arange(500) / 25, np.random.default_rng(0)
    )
    assert (got[-1] - got[0]) / 25 == pytest.approx(
        10.0
    )  # 40 steps of a quarter second; a step of 6 gives 9.6


def test_variable_frame_rate_follows_the_clock():
    timestamps = np.concatenate([np.arange(10) * 0.1, 1.0 + np.arange(10) * 0.5])  # 10 fps, then 2 fps
    assert time_indices(timestamps, 0.0, 2.0, 8).tolist() == [0, 5, 10, 11, 12, 13, 14, 15]


def test_millisecond_rounding_skips_no_frame():
    timestamps = np.round(np.arange(60) / 30, 3)
    assert time_indices(timestamps, 0.0, 30.0, 60).tolist() == list(range(60))


@given(n=st.integers(16, 200), fps=st.floats(1, 60), seed=st.integers(0, 99), t0=st.floats(-5, 5))
def test_every_frame_at_the_native_rate(n, fps, seed, t0):
    got = ClipSampler(num_frames=16, fps=None).sample(t0 + np.arange(n) / fps, np.random.default_rng(seed))
    assert np.array_equal(got, got[0] + np.arange(16)) and 0 <= got[0] and got[-1] < n


@given(n=st.integers(1, 300), video_fps=st.floats(2, 120), fps=st.floats(0.5, 60), seed=st.integers(0, 20))
def test_time_rule_stays_inside_and_ascends(n, video_fps, fps, seed):
    for position in ("random", "centre", "start"):
        got = ClipSampler(num_frames=16, fps=fps, position=position).sample(
            np.arange(n) / video_fps, np.random.default_rng(seed)
        )
        assert got.min() >= 0 and got.max() < n and (np.diff(got) >= 0).all()


def test_clip_that_fills_the_video_is_whole():
    for seed in range(20):
        got = ClipSampler(num_frames=16, fps=8.0).sample(np.arange(16) / 8, np.random.default_rng(seed))
        assert got.tolist() == list(range(16))


def test_random_starts_reach_both_ends():
    timestamps = np.arange(100) / 10
    starts = [
        ClipSampler(num_frames=11, fps=10.0).sample(timestamps, np.random.default_rng(s))[0]
        for s in range(800)
    ]
    assert min(starts) == 0 and max(starts) == 89


def test_position_and_window():
    timestamps, rng = np.arange(100) / 10, np.random.default_rng(0)
    start, centre = (ClipSampler(num_frames=5, fps=10.0, position=p) for p in ("start", "centre"))
    assert start.sample(timestamps, rng).tolist() == [0, 1, 2, 3, 4]
    assert centre.sample(timestamps[:-1], rng).tolist() == [47, 48, 49, 50, 51]
    assert start.sample(timestamps, rng, start=3.0, end=4.0).tolist() == [30, 31, 32, 33, 34]
    assert start.sample(timestamps, rng, start=3.0, end=3.2).tolist() == [30, 31, 31, 31, 31]
    assert ClipSampler(num_frames=5, fps=10.0).at("start").sample(timestamps, rng)[0] == 0
    assert ClipSampler(rule="reference").at("centre").position == "start"
    with pytest.raises(ShortVideoError, match="Correct start and end"):
        start.sample(timestamps, rng, start=50.0)


def test_short_video_is_refused_with_advice_that_works():
    timestamps, rng = np.arange(20) / 10, np.random.default_rng(0)
    with pytest.raises(ShortVideoError, match="Raise fps, lower num_frames, or set short='repeat'"):
        ClipSampler(num_frames=16, fps=4.0, short="error").sample(timestamps, rng)
    ClipSampler(num_frames=16, fps=10.0, short="error").sample(timestamps, rng)
    with pytest.raises(ShortVideoError, match="Lower frame_step"):
        ClipSampler(num_frames=16, fps=None, frame_step=2, short="error").sample(timestamps, rng)
    ClipSampler(num_frames=16, fps=None, frame_step=1, short="error").sample(timestamps, rng)
    repeated = ClipSampler(num_frames=16, fps=None, frame_step=2).sample(timestamps, rng)
    assert repeated.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18] + [19] * 6


def test_contradictory_options_are_refused():
    with pytest.raises(ValueError, match="Set one of them to null"):
        ClipSampler(fps=4.0, frame_step=4)
    with pytest.raises(ValueError, match="above 0"):
        ClipSampler(num_frames=0)
    with pytest.raises(ValueError, match="Use 'random' or 'start'"):
        ClipSampler(rule="reference", position="centre")


@pytest.mark.parametrize("fps", [4.0, 8.0, 12.0, 24.0, 29.97, 60.0])
@pytest.mark.parametrize("rule", [{"fps": 8.0}, {"fps": 16.0}, {"fps": None}, {"fps": None, "frame_step": 3}])
def test_only_clips_that_a_strict_sampler_refuses_are_padded(fps, rule):
    for num_frames in range(2, 80, 3):
        times = np.arange(num_frames) / fps
        clip = ClipSampler(**rule).sample(times, np.random.default_rng(num_frames))
        padded = is_padded(clip, (0, num_frames))
        try:
            ClipSampler(**rule, short="error").sample(times, np.random.default_rng(num_frames))
        except ShortVideoError:
            assert padded or rule != {"fps": None}, num_frames  # else less than a step is missing
        else:
            assert not padded, num_frames


def test_an_image_is_not_a_short_video():
    assert not is_padded(np.zeros(16, np.int64), (0, 1))
    assert is_padded(np.array([6, 7, 7, 7]), (6, 8)) and not is_padded(np.array([0, 4]), (0, 9))


@pytest.mark.parametrize("fps", [float("nan"), float("inf"), 0.0])
def test_a_rate_is_a_finite_number(fps):
    with pytest.raises(ValueError, match="finite numbers above 0"):
        ClipSampler(fps=fps)
