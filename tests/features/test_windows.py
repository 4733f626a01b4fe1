"""Which frames the windows of a video are made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vjepa.data import ShortVideoError
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.errors import FeaturesError
from vjepa.features.windows import MAX_FRAMES, MAX_SPAN, MAX_WINDOWS, Windows, blocks

TIMES = np.arange(100) / 10  # ten seconds


def frames(times=TIMES, part=(), num_frames=4, **windows):
    return ClipSpec(num_frames=num_frames, windows=Windows(**windows)).frames(times, *part)


def test_windows_tile_a_video_and_stride_sets_their_distance():
    tiled = frames(seconds=2.0)
    assert tiled[:, 0].tolist() == [0, 20, 40, 60, 80] and tiled[0].tolist() == [0, 5, 10, 15]
    assert frames(seconds=2.0, stride=4.0)[:, 0].tolist() == [0, 40, 80]
    assert frames(seconds=2.0, stride=0.5).shape == (17, 4)


def test_windows_keep_to_the_part_of_the_row():
    part = frames(part=(3.0, 8.0), seconds=2.0)
    assert part[:, 0].tolist() == [30, 50] and part.max() < 80


def test_a_tail_is_dropped_or_aligned():
    assert frames(seconds=4.0)[:, 0].tolist() == [0, 40]
    assert frames(seconds=4.0, tail="align")[:, 0].tolist() == [0, 40, 60]
    assert frames(seconds=5.0, tail="align")[:, 0].tolist() == [0, 50]


def test_a_short_video_is_refused_or_repeats_its_last_frame():
    with pytest.raises(ShortVideoError, match=r"10.00 s of video, a window is 11 s. Lower --window"):
        frames(seconds=11.0)
    assert frames(seconds=20.0, short="repeat").tolist() == [[0, 50, 99, 99]]
    assert len(frames(seconds=10.0)) == 1


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0.0}, {"seconds": 1.0, "stride": -1.0}, {"seconds": float("nan")}]
)
def test_lengths_are_above_zero(wrong):
    with pytest.raises(FeaturesError, match="both are seconds, at least 0.001"):
        Windows(**wrong)


lengths = st.floats(min_value=0.1, max_value=20.0)


@given(duration=lengths, seconds=lengths, stride=lengths)
def test_the_options_change_only_the_ends(duration, seconds, stride):
    dropped = Windows(seconds, stride, tail="drop", short="repeat").bounds(duration)
    aligned = Windows(seconds, stride, tail="align", short="repeat").bounds(duration)
    assert aligned[: len(dropped)] == dropped and len(aligned) <= len(dropped) + 1
    if stride <= seconds:  # without gaps between them they cover the video
        assert aligned[0][0] == 0 and aligned[-1][1] == pytest.approx(duration, abs=2e-3)
    assert all(high - low <= seconds + 2e-3 and high <= duration + 2e-3 for low, high in aligned)
    assert [low for low, _ in dropped] == [i * stride for i in range(len(dropped))]
    try:
        assert Windows(seconds, stride).bounds(duration) == dropped
    except ShortVideoError:
        assert duration < seconds and dropped == [(0.0, duration)]


@given(rate=st.floats(min_value=2.0, max_value=60.0), count=st.integers(2, 300), start=st.floats(0.0, 5.0))
def test_the_windows_of_a_clip_are_those_of_its_bounds(rate, count, start):
    """Check that the options alone decide: `extract --window` and `classify --window` cut a video alike."""
    times = start + np.arange(count) / rate
    windows = Windows(0.5, 0.3, tail="align", short="repeat")
    chosen = ClipSpec(num_frames=4, windows=windows).frames(times)
    for (low, high), clip in zip(windows.of(times), chosen, strict=True):
        assert times[clip[0]] <= low + 2e-3 and times[clip[-1]] < high + 2e-3


def test_blocks_are_all_windows_in_order_and_bounded():
    for stride in (0.1, 2.0, 30.0, 400.0):
        found = frames(np.arange(40_000) / 30, num_frames=16, seconds=2.0, stride=stride)
        runs = list(blocks(found, first=3))
        assert [i for block in runs for i in block] == list(range(3, len(found)))
        for block in runs:
            chosen = found[block.start : block.stop]
            assert len(block) <= MAX_WINDOWS and np.ptp(chosen) <= MAX_SPAN
            assert len(np.unique(chosen)) <= MAX_FRAMES
    assert all(len(block) == 1 for block in runs)  # far apart: nothing between them is decoded
