"""Files that ordinary tools write: the frames are those of a full decode from the start, or the file is refused."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.given.media import GOP, NUM_FRAMES, encode, gaps, joined, pictures, remux
from tests.shared import shared_dir
from tools.attack_media import compare
from vjepa.data import DecodeError, decoder_class
from vjepa.data.decoders.decoded import rising
from vjepa.data.decoders.packet_store import index_file

PYAV = decoder_class("pyav")
PLAIN = [
    ("h264", "avi"),
    ("h264", "mpg"),
    ("h264", "h264"),
    ("h264_open", "ts"),
    ("h264_refresh", "mp4"),
    ("h264_444", "mp4"),
    ("h264_fields", "mp4"),
    ("hevc", "hevc"),
    ("vp8", "webm"),
    ("vp9", "webm"),
    ("mpeg4", "avi"),
    ("mpeg2", "mpg"),
    ("mpeg1", "m1v"),
    ("mjpeg", "mjpeg"),
    ("dv", "dv"),
]
FAULTS = {
    "camera_restart.ts": 100,
    "vp8_hidden_frames.webm": 100,
    "animated.png": 20,
    "interlaced.mp4": 25,
    "trimmed_in_gop.mp4": 15,
    "trimmed_in_gop.mov": 15,
    "negative_times.mkv": 87,
    "raw_stream.h264": 50,
    "h264_bframes.avi": 50,
}


@pytest.mark.parametrize(("codec", "suffix"), PLAIN)
def test_frames_by_index_are_those_of_a_full_decode(codec, suffix, tmp_path):
    assert compare(encode(tmp_path / f"v.{suffix}", codec, num_frames=30), PYAV) == "same"


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
def test_a_file_that_begins_between_keyframes_has_the_frames_that_can_be_shown(suffix, tmp_path):
    whole = encode(tmp_path / "whole.mp4", "h264")
    late = remux(whole, tmp_path / f"late.{suffix}", keep=lambda number, packet: number >= GOP + 5)
    assert compare(late, PYAV) == "same"
    with PYAV.open(late) as video:
        assert 0 < video.num_frames < NUM_FRAMES - GOP - 5
        assert "begins between two keyframes" in video.note and "packets give no frame" in video.note


def test_a_clip_cut_without_encoding_again_has_the_frames_of_its_edit_list(tmp_path):
    whole = encode(tmp_path / "whole.mp4", "h264")
    cut = remux(whole, tmp_path / "cut.mp4", keep=lambda i, _: i >= GOP, shift=-(GOP + 5.5) / 25)
    assert compare(cut, PYAV) == "same"


@pytest.mark.parametrize("codec", ["h264", "mpeg2"])
def test_a_clock_that_starts_again_goes_on(codec, tmp_path):
    part = encode(tmp_path / "part.ts", codec, num_frames=20)
    twice = joined(tmp_path / "twice.ts", part, part)
    assert compare(twice, PYAV) == "same"
    with PYAV.open(twice) as video:
        assert np.allclose(np.diff(video.timestamps), 0.04, atol=0.01) and "clock" in video.note


def test_long_gaps_and_missing_packets(tmp_path):
    assert compare(encode(tmp_path / "gaps.mp4", "hevc", seconds=gaps), PYAV) == "same"
    whole = encode(tmp_path / "whole.mp4", "hevc", num_frames=30)
    holes = remux(whole, tmp_path / "holes.mp4", keep=lambda number, _: number not in (5, 20))
    assert compare(holes, PYAV) == "same"


def test_what_is_read_from_its_start_is_kept_in_the_index(tmp_path):
    raw = index_file(str(encode(tmp_path / "v.h264", "h264", num_frames=20)))
    assert raw is not None and raw.packets.in_order and len(raw.packets.pts) == 20


def test_rising_times():
    assert rising([None, None, 80, 120, 0, 40], 40).tolist() == [0, 40, 80, 120, 160, 200]
    assert rising([None] * 3, 10).tolist() == [0, 10, 20]
    assert rising([5, 5, 9], 2).tolist() == [5, 7, 11]


def test_media_that_is_no_whole_file_says_what_it_is(tmp_path):
    parts = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    content = encode(tmp_path / "parts.mp4", "h264", options=parts).read_bytes()
    begin = content.index(b"moof") - 4
    (tmp_path / "init.mp4").write_bytes(content[:begin])
    (tmp_path / "segment.mp4").write_bytes(content[begin:])
    key = "0123456789abcdef" * 2
    secret = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    encode(tmp_path / "secret.mp4", "h264", options=secret)
    for name, reason in (("init", "only a header"), ("segment", "without its init"), ("secret", "encrypted")):
        with pytest.raises(DecodeError, match=reason):
            PYAV.open(tmp_path / f"{name}.mp4")


def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded(tmp_path):
    size = struct.pack("<HH", 16000, 16000)
    picture = b"!\xf9\4\0\n\0\0\0," + struct.pack("<HH", 0, 0) + size + b"\0\2\2\x4c\1\0;"
    (tmp_path / "bomb.gif").write_bytes(b"GIF89a" + size + b"\x80\0\0\0\0\0\xff\xff\xff" + picture)
    with pytest.raises(DecodeError, match="67,108,864 pixels"), PYAV.open(tmp_path / "bomb.gif") as video:
        video.frames_at([0])
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(DecodeError, match="67,108,864"):
        with decoder_class("auto").open(tmp_path / "bomb.png") as video:
            video.frames_at([0])


@pytest.mark.parametrize("name", ["10:30.mp4", "~x.mp4", "2026-01-01T10:30.mp4"])
def test_names_that_look_like_addresses(name, tmp_path, monkeypatch):
    encode(tmp_path / "v.mp4", "h264", num_frames=4).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with decoder_class("auto").open(name) as video:
        assert video.frames_at([3]).shape[0] == 1


@pytest.mark.parametrize("suffix", ["png", "webp", "avif"])
def test_animations_have_their_own_times(suffix, tmp_path):
    frames = [Image.fromarray(frame) for frame in pictures(4, width=40, height=32)]
    path = tmp_path / f"v.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[40, 80, 200, 40], lossless=True)
    with decoder_class("auto").open(path) as video:
        assert video.timestamps.tolist() == pytest.approx([0, 0.04, 0.12, 0.32])
        read = video.frames_at([3, 0]).permute(0, 2, 3, 1).numpy()
    with Image.open(path) as opened:
        for place, number in enumerate((3, 0)):
            opened.seek(number)
            assert (np.asarray(opened.convert("RGB")) == read[place]).all()


def test_the_still_picture_before_an_animation_is_no_frame(tmp_path):
    frames = [Image.fromarray(frame) for frame in pictures(4, width=40, height=32)]
    frames[0].save(tmp_path / "v.png", save_all=True, append_images=frames[1:], default_image=True)
    with decoder_class("auto").open(tmp_path / "v.png") as video:
        assert video.num_frames == 3
        assert (video.frames_at([0])[0].permute(1, 2, 0).numpy() == np.asarray(frames[1])).all()


@pytest.mark.parametrize("name", FAULTS)
def test_shared_faults(name):
    folder = shared_dir()
    if folder is None:
        pytest.skip("the shared clips are absent")
    path = folder / "data" / "decoder_clips" / "faults" / name
    if path.suffix != ".png":
        assert compare(path, PYAV) == "same"
    with decoder_class("auto").open(path) as video:
        assert video.num_frames == FAULTS[name]
