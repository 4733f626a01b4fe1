"""Videos opened whole, or up to where their end is missing."""

import pytest

from tests.videos import write_broken, write_video
from vjepa.data import DecodeError, open_video
from vjepa.data.decoders.readable_prefix import ReadablePrefix


@pytest.fixture
def cut(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", num_frames=48)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    return whole, cut


def test_a_video_without_its_end_is_opened_as_far_as_it_goes(cut):
    opening = ReadablePrefix("auto")
    with opening.open(str(cut[0])) as whole, opening.open(str(cut[1])) as part:
        assert whole.failure is None
        frames = part.video.num_frames
        assert 8 < frames < whole.video.num_frames == 48
        assert part.failure.path == str(cut[1]) and f"read from {frames / 8:.2f} s on" in part.failure.reason
        last = [frames - 1]
        assert (part.video.frames_at(last) == whole.video.frames_at(last)).all()
        with open_video(part.open_again, str(cut[1])) as again:
            assert again.num_frames == frames


def test_nothing_is_made_of_what_has_no_beginning_or_is_wanted_whole(cut, tmp_path):
    for opening, path in (
        *((ReadablePrefix("auto"), str(path)) for path in write_broken(tmp_path)),
        (ReadablePrefix("auto", parts=False), str(cut[1])),
        (ReadablePrefix("vjepa.data.decoders.backends.pyav.PyAVDecoder"), str(cut[1])),
    ):
        with pytest.raises(DecodeError), opening.open(path):
            pass
