"""What the packets tell, and that frames are those of decoding everything plainly, whatever is skipped."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.decoders.test_decoders import BROKEN, shared_clips
from tests.videos import moving_frames, write_broken
from vjepa.data import DecodeError
from vjepa.data.decoders.backends.pyav import PyAVDecoder
from vjepa.data.decoders.packets import index_packets
from vjepa.data.decoders.stream import UNDECODED, open_video_file

NUM_FRAMES = 36


def encode(path, codec, pix_fmt="yuv420p", options=None, num_frames=NUM_FRAMES, gop=12):
    """`moving_frames` with noise, so that every frame differs from the others."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options or {})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, pix_fmt, gop
        stream.codec_context.thread_count = 1
        for rgb in moving_frames(num_frames, 48, 64):
            noisy = (rgb + rng.integers(-20, 20, rgb.shape)).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def decoded_plainly(path):
    """Every frame in turn, without a seek, upright; in the order in which the decoder gives them."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        frames = [
            np.rot90(f.to_ndarray(format="rgb24"), round(f.rotation / 90) % 4)
            for f in container.decode(stream)
        ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def check_against_plain(path, draws, rng):
    every = decoded_plainly(path)
    with PyAVDecoder.open(path) as video:
        assert video.num_frames == len(every)
        for _ in range(draws):
            count = int(rng.integers(1, min(8, len(every)) + 1))
            wanted = rng.choice(len(every), count).tolist()
            assert torch.equal(video.frames_at(wanted), every[wanted]), wanted
        start, step = int(rng.integers(len(every))), int(rng.integers(1, 6))
        run = list(range(start, len(every), step))
        assert torch.equal(video.frames_at(run), every[run])


@settings(max_examples=12, deadline=None)
@given(
    gop=st.sampled_from([1, 2, 5, 12, 250]),
    bframes=st.integers(0, 5),
    pyramid=st.sampled_from(["none", "strict", "normal"]),
    refs=st.integers(1, 6),
    weightp=st.integers(0, 2),
    flags=st.sets(st.sampled_from(["open-gop=1", "intra-refresh=1", "b-adapt=0", "cabac=0", "interlaced=1"])),
    pix_fmt=st.sampled_from(["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuvj420p"]),
    suffix=st.sampled_from(["mp4", "mkv", "mov", "avi", "ts"]),
    seed=st.integers(0, 1000),
)
def test_h264_of_any_make(
    tmp_path_factory, gop, bframes, pyramid, refs, weightp, flags, pix_fmt, suffix, seed
):
    params = ":".join([f"bframes={bframes}:b-pyramid={pyramid}:ref={refs}:weightp={weightp}", *sorted(flags)])
    options = {"x264-params": params, "preset": "veryfast"}
    path = tmp_path_factory.mktemp("h264") / f"clip.{suffix}"
    encode(path, "libx264", pix_fmt, options, gop=gop)
    if suffix == "avi" and bframes:
        return  # AVI has no times for frames that are shown out of order
    check_against_plain(path, 4, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx265", "mp4", {"x265-params": "keyint=8:bframes=4:open-gop=1:log-level=none"}),
        ("libx265", "mkv", {"x265-params": "keyint=12:temporal-layers=2:log-level=none"}),
        (
            "libvpx-vp9",
            "webm",
            {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"},
        ),
        ("mpeg4", "avi", {"bf": "2"}),
        ("mpeg4", "mp4", {"bf": "2"}),
        ("mjpeg", "avi", {}),
        ("ffv1", "mkv", {}),
    ],
)
def test_other_codecs(tmp_path, codec, suffix, options):
    path = encode(tmp_path / f"clip.{suffix}", codec, "yuvj420p" if codec == "mjpeg" else "yuv420p", options)
    check_against_plain(path, 6, np.random.default_rng(1))


@pytest.mark.skipif(not shared_clips(), reason="needs the shared decoder clips")
@pytest.mark.parametrize("path", shared_clips(), ids=lambda p: p.name)
def test_shared_clips_are_as_decoded_plainly(path):
    if any(word in path.name for word in BROKEN):
        return
    check_against_plain(path, 4, np.random.default_rng(2))


def test_a_file_is_opened_without_decoding(tmp_path):
    path = encode(tmp_path / "clip.mp4", "libx264")
    with av.open(path, options=UNDECODED) as container:
        assert container.streams.video[0].codec_context.pix_fmt is None  # which ffmpeg learns by decoding
    video = open_video_file(path)
    assert video.stream.codec_context.pix_fmt is None and video.header.depth == 8
    index = index_packets(path, video)
    assert len(index.pts) == NUM_FRAMES and index.exact and index.reorder >= 1
    video.container.close()
    other = open_video_file(encode(tmp_path / "clip.avi", "mpeg4"))
    assert other.stream.codec_context.pix_fmt == "yuv420p"  # not without: AVI has no times of frames
    assert not index_packets("clip.avi", other).exact
    other.container.close()


def test_reordering_is_told_by_the_packets(tmp_path):
    for bframes, pyramid, reorder in ((0, "none", 0), (3, "none", 1), (3, "normal", 2)):
        params = f"bframes={bframes}:b-adapt=0:b-pyramid={pyramid}:scenecut=0"
        path = encode(tmp_path / "clip.mp4", "libx264", options={"x264-params": params}, gop=NUM_FRAMES)
        with PyAVDecoder.open(path) as video:
            assert video._index.reorder == reorder


def test_groups_of_pictures_without_a_wanted_frame_are_passed_over(tmp_path):
    path = encode(tmp_path / "clip.mp4", "libx264", options={"x264-params": "bframes=0:scenecut=0"}, gop=6)
    with PyAVDecoder.open(path) as video:
        times = video._index.pts
        runs = video._runs({int(times[i]): [i] for i in (1, 4, 20, 35)})
        assert list(runs) == [times[0], times[18], times[30]]


def test_packets_in_no_order_do_not_abort_the_process(tmp_path):
    path = encode(tmp_path / "clip.mkv", "libx264", options={"bf": "0"}, num_frames=40, gop=40)
    with PyAVDecoder.open(path) as video:
        opened, index = open_video_file(path), video._index
        late = PyAVDecoder(path=path, video=opened, index=index._replace(reorder=20))
        assert torch.equal(late.frames_at([0, 30]), video.frames_at([0, 30]))
        late.close()


def test_broken_files_are_told_in_one_line(tmp_path):
    for path in write_broken(tmp_path):
        with pytest.raises(DecodeError, match="empty|no video|truncated|cut off"):
            PyAVDecoder.open(path)


def test_a_title_of_another_alphabet_is_no_matter(tmp_path):
    path = tmp_path / "clip.mp4"
    encode(path, "libx264", num_frames=4)
    content = path.read_bytes()
    assert b"Lavf" in content
    path.write_bytes(content.replace(b"Lavf", b"\xe1avf"))
    with PyAVDecoder.open(path) as video:
        assert video.num_frames == 4
