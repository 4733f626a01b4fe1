import shutil

import av
import numpy as np
import pytest

from tests.videos import write_video
from vjepa.data import ClipSampler, ShortVideoError
from vjepa.data.audit.examine import FileJob, FileRecord, examine
from vjepa.data.audit.findings import ClipNeeds
from vjepa.data.decoders.backends.pyav import PyAVDecoder


def record(path, *parts) -> FileRecord:
    return FileRecord.read(examine(FileJob(str(path), parts or ((None, None),), "pyav")))


def remux(source, target):
    """The same packets in another container."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target


def test_a_file_is_measured(tmp_path):
    found = record(write_video(tmp_path / "v.mp4", num_frames=20, height=16, width=32, fps=10.0), (0.5, 1.0))
    assert (found.num_frames, found.size, found.uneven) == (20, (32, 16), 0)
    assert found.fps == pytest.approx(10.0) and found.seconds == pytest.approx(2.0)
    (part,) = found.parts
    assert part.num_frames == 5 and part.seconds == pytest.approx(0.4) and part.gap == pytest.approx(0.1)
    assert record(tmp_path / "v.mp4", (5.0, 6.0)).parts[0].num_frames == 0
    assert "empty" in record((tmp_path / "no.mp4", (tmp_path / "no.mp4").write_bytes(b""))[0]).reason


def test_uneven_gaps_are_counted_and_rounded_times_are_not(tmp_path):
    even = write_video(tmp_path / "even.mkv", num_frames=30, fps=30.0)  # stamped 33, 67, 100 ms
    assert record(even).uneven == 0
    seconds = [t / 10 + (0.35 if t >= 6 else 0.0) for t in range(12)]
    found = record(write_video(tmp_path / "gap.mp4", num_frames=12, fps=10.0, seconds=seconds))
    assert found.uneven == 1 and found.longest_gap == pytest.approx(0.45) and found.gap == pytest.approx(0.1)


def test_content_is_that_of_the_pictures(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=12, seed=1)
    same = record(video).content
    assert record(shutil.copy(video, tmp_path / "copy.mp4")).content == same
    assert record(remux(video, tmp_path / "b.mkv")).content == same
    others = [
        write_video(tmp_path / "c.mp4", num_frames=12, seed=2),
        write_video(tmp_path / "d.mp4", num_frames=11, seed=1),
        write_video(tmp_path / "e.mkv", num_frames=12, seed=1, codec="mpeg4"),  # encoded anew: not seen
    ]
    assert len({same, *(record(path).content for path in others)}) == 4


def test_a_long_video_is_hashed_and_decoded_in_parts(tmp_path, monkeypatch):
    video = write_video(tmp_path / "a.mp4", num_frames=50, height=16, width=16)
    whole = record(video)
    monkeypatch.setattr("vjepa.data.audit.examine.MAX_BYTES", 20 * 16 * 16 * 3)
    assert record(video) == whole and whole.num_frames == 50


@pytest.mark.parametrize("fps", [None, 4.0, 7.5])
def test_short_is_what_the_sampler_refuses(tmp_path, fps):
    video = write_video(tmp_path / "v.mp4", num_frames=25, height=16, width=16, fps=12.5)
    with PyAVDecoder.open(video) as opened:
        shown = opened.timestamps
    parts = [(start, end) for start in (None, 0.4) for end in (0.5, 0.96, 1.0, 1.28, None)]
    for part, found in zip(parts, record(video, *parts).parts, strict=True):
        for num_frames in (1, 2, 5, 6, 8, 14, 25, 26):
            sampler = ClipSampler(num_frames=num_frames, fps=fps, short="error", position="start")
            try:
                sampler.sample(shown, np.random.default_rng(0), *part)
                refused = False
            except ShortVideoError:
                refused = True
            assert bool(ClipNeeds(num_frames=num_frames, fps=fps).lacking(found)) == refused, (
                part,
                num_frames,
            )
