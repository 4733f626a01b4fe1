"""Backends agree to the bit on all that they read, and refuse the rest by name."""

import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from tests.data.decoders.test_decoders import BROKEN, needs, shared_clips
from tests.videos import write_video
from vjepa.data import DecodeError, decoder_class
from vjepa.data.decoders import auto, packets
from vjepa.data.decoders.backends.pyav import PyAVDecoder

OTHERS = ("torchcodec", "decord")
KINDS = [  # suffix, options of the test video; the odd sizes take other paths of ffmpeg's colour conversion
    (".mp4", {}),
    (".mp4", {"width": 70, "height": 50, "gop": 300}),
    (".mp4", {"codec": "libx265", "gop": 10}),
    (".mkv", {"codec": "libvpx-vp9", "width": 90}),
    (".webm", {"codec": "libvpx", "height": 42}),
    (".mkv", {"codec": "libx264", "seconds": [0.3 * t + 0.1 * (t % 3) for t in range(24)]}),
    (".avi", {"codec": "mpeg4"}),
    (".avi", {"codec": "mjpeg"}),
    (".mkv", {"codec": "ffv1"}),
    (".mpg", {"codec": "mpeg2video", "fps": 25.0}),
]
NARROW = (16, 24, 48)  # widths that divide the bytes of a padded row by more than 3


def frames_or_reason(name, path, wanted):
    """Frames of a file, or the reason that the backend gives for not reading it."""
    try:
        with decoder_class(name).open(path) as video:
            chosen = [i % video.num_frames for i in wanted]
            return video.frames_at(chosen), video.timestamps.tolist()
    except DecodeError as e:
        assert e.path == str(path) and "\n" not in e.reason
        return e.reason


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("suffix", "options"), KINDS, ids=lambda o: o if isinstance(o, str) else str(o))
def test_frames_and_times_are_those_of_pyav(name, suffix, options, tmp_path):
    needs(name)
    path = write_video(tmp_path / f"v{suffix}", **{"num_frames": 24, **options})
    for wanted in (list(range(24)), [23, 5, 5, 11]):
        frames, seconds = frames_or_reason("pyav", path, wanted)
        found = frames_or_reason(name, path, wanted)
        if isinstance(found, str):
            assert (name, suffix) in {
                ("decord", ".avi"),
                ("torchcodec", ".avi"),
                ("torchcodec", ".mpg"),
            } and name in found
        else:
            assert torch.equal(found[0], frames) and found[1] == seconds


@pytest.mark.skipif(not shared_clips(), reason="needs the shared decoder clips")
@pytest.mark.parametrize("path", shared_clips(), ids=lambda p: p.name)
@pytest.mark.parametrize("name", OTHERS)
def test_shared_clips_are_read_as_pyav_reads_them_or_refused(name, path):
    needs(name)
    wanted = [0, 3, 17, -1]
    found = frames_or_reason(name, path, wanted)
    if any(word in path.name for word in BROKEN):
        assert isinstance(found, str)
    elif not isinstance(found, str):
        frames, seconds = frames_or_reason("pyav", path, wanted)
        assert torch.equal(found[0], frames) and found[1] == seconds


@pytest.mark.parametrize("name", OTHERS)
def test_more_than_8_bits_are_refused_with_a_way_out(name, tmp_path):
    needs(name)
    path = write_video(tmp_path / "v.mkv", codec="ffv1", pixels="yuv420p10le")
    assert "10 bits per channel" in (reason := frames_or_reason(name, path, [0])) and "use 'pyav'" in reason
    assert frames_or_reason("pyav", path, [0])[0].shape == (1, 3, 64, 64)


@pytest.mark.parametrize("name", OTHERS)
def test_interlaced_videos_are_refused_for_their_colours(name, tmp_path):
    needs(name)
    path = write_video(tmp_path / "v.mp4", width=70, seed=3, options={"x264-params": "tff=1"})
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    assert "interlaced" in frames_or_reason(name, path, [7, 2]) and "use 'pyav'" in frames_or_reason(
        name, path, [2]
    )


def test_narrow_videos_are_right_or_refused_by_decord(tmp_path):
    needs("decord")
    for width in (*NARROW, 32, 50):
        path = write_video(
            tmp_path / f"{width}.mkv", width=width, height=16, codec="ffv1", pixels="yuv444p", num_frames=3
        )
        found = frames_or_reason("decord", path, [0, 2])
        if width in NARROW:
            assert "channels from narrow videos" in found and "use 'pyav'" in found
        else:
            assert torch.equal(found[0], frames_or_reason("pyav", path, [0, 2])[0])
        assert frames_or_reason("pyav", path, [0])[0].shape == (1, 3, 16, width)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("name", OTHERS)
def test_a_name_that_is_no_unicode_is_read_by_pyav_and_refused_by_others(name, tmp_path):
    needs(name)
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    os.rename(write_video(tmp_path / "v.mp4"), path)
    reason = frames_or_reason(name, path, [0])
    assert f"its name is not UTF-8, which {name} needs" in reason and "use 'pyav'" in reason
    assert frames_or_reason("pyav", path, [0])[0].shape == (1, 3, 64, 64)


def test_a_picture_that_stays_is_no_error():
    path = Path(__file__).parents[1] / "fixtures" / "repeats.ogv"  # Theora writes it as a packet of no bytes
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0)][:-1]
    assert 0 in sizes
    frames, seconds = frames_or_reason("pyav", path, list(range(len(sizes) - sizes.count(0))))
    assert len(frames) == len(seconds) and len(frames.unique(dim=0)) == len(frames)


def test_decord_does_not_seek_where_it_goes_wrong(tmp_path):
    needs("decord")
    for options in ({"x264-params": "open-gop=1:bframes=3:keyint=12"}, {"x264-params": "intra-refresh=1"}):
        path = write_video(tmp_path / "v.mp4", num_frames=60, options=options)
        wanted = [55, 20, 20, 37]
        with decoder_class("decord").open(path) as video:
            for again in (wanted, [38, 59], [3]):  # also after what was decoded already
                assert torch.equal(video.frames_at(again), frames_or_reason("pyav", path, again)[0])
    path = write_video(tmp_path / "v.ts", codec="mpeg2video", fps=25.0)
    assert "transport stream: decord counts its frames wrongly" in frames_or_reason("decord", path, [0])


def test_torchcodec_never_gives_another_frame_than_asked_for(tmp_path):
    needs("torchcodec")
    path = write_video(tmp_path / "v.mp4", num_frames=60, options={"x264-params": "intra-refresh=1"})
    found = frames_or_reason("torchcodec", path, [50, 20, 10])
    if isinstance(found, str):
        assert "s from the requested ones; use 'pyav'" in found
    else:
        assert torch.equal(found[0], frames_or_reason("pyav", path, [50, 20, 10])[0])


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_rounded_freely_is_refused(name, tmp_path, monkeypatch):
    needs(name)
    path = write_video(tmp_path / "v.avi", codec="mpeg4")
    assert f"codec mpeg4: {name} rounds" in frames_or_reason(name, path, [0])
    monkeypatch.setattr(packets, "INEXACT_CODECS", ())
    assert frames_or_reason(name, path, [0])[0].shape == (1, 3, 64, 64)


def test_a_text_is_no_video(tmp_path):
    text = tmp_path / "README.txt"
    text.write_text("Clips to test decoding with.\n" * 20)
    assert frames_or_reason("pyav", text, [0]) == "a text file, no video"


LOAD = """
import torch
real = torch.ops.load_library
def load(path):
    if "core" in path or "custom_ops" in path:
        raise OSError("libavutil.so.99: cannot open shared object file")
    return real(path)
torch.ops.load_library = load
from vjepa.data import decoder_class
try:
    decoder_class("torchcodec").open("v.mp4")
except ImportError as e:
    print(e)
"""


@pytest.mark.slow
def test_torchcodec_without_ffmpeg_names_the_missing_library():
    pytest.importorskip("torchcodec")
    told = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True).stdout
    assert (
        'libavutil.so.99: cannot open shared object file. Run `pip install "vjepa-toolkit[torchcodec]"`'
        in told
    )
    assert told.count("libavutil") == 1 and "use decoder 'pyav'" in told


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ImportError, match=r'pip install "vjepa-toolkit\[torchcodec\]"'):
        decoder_class("torchcodec").open("v.mp4")


@pytest.fixture
def fresh_choice():
    auto.fastest.cache_clear()
    yield
    auto.fastest.cache_clear()


def test_auto_takes_the_first_that_works_and_says_so(fresh_choice, monkeypatch, tmp_path, caplog):
    path = write_video(tmp_path / "v.mp4")
    monkeypatch.setattr(auto, "ORDER", ("frames.Missing", "pyav", "decord"))
    with caplog.at_level("INFO"), decoder_class("auto").open(path) as video:
        assert isinstance(video, PyAVDecoder)
        assert video.num_frames == 16
    with decoder_class("auto").open(path):
        pass
    (line,) = [record.message for record in caplog.records if "decoder auto" in record.message]
    assert "read with pyav" in line and "frames.Missing: decoder 'frames.Missing'" in line


def test_auto_without_any_backend_names_every_cause(fresh_choice, monkeypatch, tmp_path):
    monkeypatch.setattr(auto, "ORDER", ("no.such", "nor.this"))
    with pytest.raises(ImportError, match="no decoder works here. no.such: .*nor.this: .*vjepa doctor"):
        decoder_class("auto").open(tmp_path / "v.mp4")
