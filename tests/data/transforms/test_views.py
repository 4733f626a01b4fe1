"""Segments and views of one video."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import reference_case
from vjepa.data import ClipSampler, EvalTransform, SegmentSampler, ShortVideoError, ViewsTransform
from vjepa.data.sampling import reference_indices
from vjepa.data.transforms.views import view_transform

RNG = np.random.default_rng


def segments(num_segments, seconds=10.0, rate=25.0, seed=0, **options):
    sampler = SegmentSampler(sampler=ClipSampler(**options), num_segments=num_segments)
    got = sampler.sample(np.arange(round(seconds * rate)) / rate, RNG(seed))
    return got.reshape(num_segments, -1)


def test_three_views_match_the_published_evaluation():
    case = reference_case("eval_transforms")
    frames = case.tensors["in.frames_uint8"].permute(0, 3, 1, 2)
    got = pickle.loads(pickle.dumps(ViewsTransform(size=32)))(frames, RNG(0))
    for view, part in enumerate(got.split(2, dim=1)):
        case.assert_close(part, f"out.three_view_{view}")
    turned = ViewsTransform(size=32)(frames.transpose(2, 3)).transpose(2, 3)
    torch.testing.assert_close(turned, got, atol=0.02, rtol=0)  # a grey level


def test_views_reach_both_ends():
    ramp = torch.arange(0, 250, 2, dtype=torch.uint8).expand(1, 3, 25, 125)
    views = ViewsTransform(size=25, mean=(0.0,) * 3, std=(1.0,) * 3)(ramp)
    assert (
        views.shape == (3, 3, 25, 25) and views[0, 0, 0, 0] == 0 and (views[0, 2, 0, -1] * 255).round() == 248
    )
    assert ViewsTransform(size=25, num_views=5)(ramp).shape == (3, 5, 25, 25)
    with pytest.raises(ValueError, match="use EvalTransform"):
        ViewsTransform(num_views=1)


@given(height=st.integers(1, 700), width=st.integers(1, 700), views=st.integers(2, 4))
def test_any_frame_has_its_views(height, width, views):
    frames = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    assert ViewsTransform(size=8, num_views=views)(frames).shape == (3, views, 8, 8)


def test_one_view_is_the_central_one_and_several_are_square():
    one = view_transform((16, 24), 1)
    assert isinstance(one, EvalTransform) and one.size == (16, 24) and one.short_side == 16
    assert isinstance(view_transform(16, 3), ViewsTransform)
    with pytest.raises(ValueError, match="Give 1 view"):
        view_transform((16, 24), 3)


def test_segments_by_the_published_rule():
    for n in (300, 100, 65, 40):
        got = segments(
            4, seconds=n, rate=1.0, num_frames=16, fps=None, frame_step=4, rule="reference", position="start"
        )
        assert np.array_equal(got, reference_indices(n, 16, 4, 4, allow_overlap=True))
    got = segments(2, num_frames=8, fps=None, frame_step=4, rule="reference", position="random", seed=3)
    draw = RNG(3)
    want = reference_indices(
        250, 8, 4, 2, allow_overlap=True, random_start=lambda low, high: int(draw.integers(low, high))
    )
    assert np.array_equal(got, want)


@pytest.mark.parametrize("position", ["start", "centre", "random"])
@pytest.mark.parametrize("options", [{"fps": 4.0}, {"fps": None}, {"fps": None, "frame_step": 3}])
def test_each_part_has_its_clip(options, position):
    got = segments(3, seconds=30.0, num_frames=8, position=position, **options)
    for part, clip in enumerate(got):
        assert part * 250 <= clip.min() and clip.max() < (part + 1) * 250
        assert np.array_equal(clip - clip[0], got[0] - got[0][0])
    if position != "random":
        assert np.array_equal(
            got, segments(3, seconds=30.0, num_frames=8, position=position, seed=1, **options)
        )


def test_clips_of_a_short_video_overlap_from_its_beginning_to_its_end():
    got = segments(5, seconds=2.0, num_frames=8, fps=None, position="start", frame_step=4)
    assert got[0][0] == 0 and got[-1][-1] == 49 and (np.diff(got, axis=1) == 4).all()
    assert (np.diff(got[:, 0]) > 0).all()
    tiny = segments(3, seconds=0.2, num_frames=8, fps=None, position="centre")
    assert tiny.tolist() == [[0, 1, 2, 3, 4, 4, 4, 4]] * 3
    with pytest.raises(ShortVideoError, match="Lower frame_step"):
        segments(3, seconds=0.2, num_frames=8, fps=None, short="error")


@given(
    n=st.integers(1, 400),
    rate=st.floats(5, 120),
    fps=st.floats(1, 30),
    count=st.integers(1, 8),
    frames=st.integers(1, 16),
)
def test_segments_stay_inside_and_are_whole_where_the_video_is_long_enough(n, rate, fps, count, frames):
    timestamps = np.arange(n) / rate
    span_seconds = (frames - 1) / fps
    short = "error" if n / rate > span_seconds + 2 / rate + 0.01 else "repeat"
    sampler = SegmentSampler(sampler=ClipSampler(num_frames=frames, fps=fps, short=short), num_segments=count)
    got = sampler.sample(timestamps, RNG(0)).reshape(count, frames)
    assert got.min() >= 0 and got.max() < n and (np.diff(got, axis=1) >= 0).all()
    if short == "error":
        assert (
            np.abs(timestamps[got[:, -1]] - timestamps[got[:, 0]] - span_seconds) <= 1 / rate + 2e-3
        ).all()


def test_segments_respect_start_and_end():
    sampler = SegmentSampler(sampler=ClipSampler(num_frames=2, fps=None, position="start"), num_segments=2)
    got = sampler.sample(np.arange(100) / 10, RNG(0), start=3.0, end=7.0)
    assert got.tolist() == [30, 31, 50, 51]
    with pytest.raises(ShortVideoError, match="Correct start and end"):
        sampler.sample(np.arange(100) / 10, RNG(0), start=30.0)
    with pytest.raises(ValueError, match="at least 1"):
        SegmentSampler(sampler=ClipSampler(), num_segments=0)
