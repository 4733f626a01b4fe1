"""Which frames the windows of a video are made of."""

import numpy as np
import pytest

from vjepa.data import ShortVideoError
from vjepa.extraction import ExtractionError, Windows
from vjepa.extraction.windows import MAX_FRAMES, MAX_SPAN, MAX_WINDOWS, blocks

TIMES = np.arange(100) / 10  # ten seconds
NOTHING = {"native_frames": 4, "num_frames": None, "fps": None, "window": None, "stride": None}


def windows(**given):
    return Windows.of(**NOTHING | given)


def test_windows_tile_a_video_and_stride_sets_their_distance():
    tiled = windows(window=2.0).frames(TIMES)
    assert tiled[:, 0].tolist() == [0, 20, 40, 60, 80] and tiled[0].tolist() == [0, 5, 10, 15]
    assert windows(window=2.0, stride=4.0).frames(TIMES)[:, 0].tolist() == [0, 40, 80]
    assert windows(window=2.0, stride=0.5).frames(TIMES).shape == (17, 4)


def test_windows_keep_to_the_part_of_the_row():
    part = windows(window=2.0).frames(TIMES, 3.0, 8.0)
    assert part[:, 0].tolist() == [30, 50] and part.max() < 80


def test_fps_gives_the_frames_of_a_window():
    assert windows(window=2.0, fps=5.0).frames(TIMES)[0].tolist() == list(range(0, 20, 2))
    with pytest.raises(ExtractionError, match="Leave fps or num_frames out"):
        windows(window=2.0, fps=5.0, num_frames=3)
    assert windows(window=2.0, num_frames=3).frames(TIMES).shape == (5, 3)


def test_what_makes_no_window_says_so():
    with pytest.raises(ShortVideoError, match=r"10.00 s of video, a window is 11 s. Lower --window"):
        windows(window=11.0).frames(TIMES)
    assert len(windows(window=10.0).frames(TIMES)) == 1
    with pytest.raises(ExtractionError, match="Give --window"):
        windows(stride=1.0)
    with pytest.raises(ExtractionError, match="above 0"):
        windows(window=1.0, stride=0.0)


def test_blocks_are_all_windows_in_order_and_bounded():
    for stride in (0.1, 2.0, 30.0, 400.0):
        frames = windows(window=2.0, num_frames=16, stride=stride).frames(np.arange(40_000) / 30)
        found = list(blocks(frames, first=3))
        assert [i for block in found for i in block] == list(range(3, len(frames)))
        for block in found:
            chosen = frames[block.start : block.stop]
            assert len(block) <= MAX_WINDOWS and np.ptp(chosen) <= MAX_SPAN
            assert len(np.unique(chosen)) <= MAX_FRAMES
    assert all(len(block) == 1 for block in found)  # far apart: nothing between them is decoded
