"""Leaving pictures undecoded that nothing refers to: the others are the same, bit for bit, or it is not done."""

import av
import numpy as np
import pytest

from vjepa.data.decoders import decoder_class
from vjepa.data.decoders.h264 import decoding_may_begin, length_bytes, read_header

SIZE = (64, 48)
STREAMS = {
    "defaults": {},
    "closed groups": {"g": "8", "bf": "3"},
    "open groups": {"g": "8", "bf": "3", "x264-params": "open-gop=1"},
    "pyramid of b-frames": {"bf": "7", "x264-params": "b-pyramid=strict:b-adapt=0"},
    "no pyramid": {"bf": "5", "x264-params": "b-pyramid=none:b-adapt=0"},
    "weighted prediction": {"x264-params": "weightp=2:weightb=1:ref=6"},
    "intra refresh": {"x264-params": "intra-refresh=1:keyint=12"},
    "no b-frames": {"bf": "0", "refs": "4"},
    "scaling lists": {"x264-params": "cqm=jvt"},
    "baseline": {"profile": "baseline"},
    "one keyframe": {"g": "250", "x264-params": "scenecut=0"},
}


def write_h264(path, num_frames=40, pix_fmt="yuv420p", **options):
    """A moving square over drifting noise, in H.264."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (SIZE[1] + 40, SIZE[0] + 40, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
        for t in range(num_frames):
            picture = ground[t % 40 : t % 40 + SIZE[1], (2 * t) % 40 : (2 * t) % 40 + SIZE[0]].copy()
            picture[10:30, (3 * t) % 50 : (3 * t) % 50 + 12] = (255, 40, 6 * t % 255)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return str(path)


def header_of(path):
    with av.open(path) as container:
        return read_header(container.streams.video[0].codec_context.extradata)


@pytest.mark.parametrize("options", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_are_those_of_decoding_everything(tmp_path, options, suffix):
    path = write_h264(tmp_path / f"clip.{suffix}", **options)
    assert header_of(path).may_skip
    rng = np.random.default_rng(1)
    with decoder_class("pyav").open(path) as video:
        every = video.frames_at(list(range(video.num_frames)))
        for _ in range(8):
            indices = sorted(rng.choice(video.num_frames, 5, replace=False).tolist())
            assert (video.frames_at(indices) == every[indices]).all(), indices


def test_less_is_decoded(tmp_path):
    path = write_h264(tmp_path / "clip.mp4", bf="3", **{"x264-params": "b-adapt=0:b-pyramid=none:scenecut=0"})
    with decoder_class("pyav").open(path) as video:
        video.frames_at([0])  # sets the container to the beginning
        video._container.seek(0, stream=video._stream)
        last = int(video._index.pts[-1])
        assert sum(1 for _ in video._frames({last})) < 0.5 * video.num_frames


@pytest.mark.parametrize(
    ("pix_fmt", "options", "chroma", "progressive"),
    [
        ("yuv444p", {}, 3, True),
        ("yuv422p", {}, 2, True),
        ("yuv420p", {"x264-params": "interlaced=1"}, 1, False),
    ],
)
def test_streams_of_which_nothing_is_left_out(tmp_path, pix_fmt, options, chroma, progressive):
    path = write_h264(tmp_path / "clip.mp4", pix_fmt=pix_fmt, num_frames=8, **options)
    header = header_of(path)
    assert (header.chroma, header.progressive, header.may_skip) == (chroma, progressive, False)


def test_depth_is_read_and_damage_is_none(tmp_path):
    path = write_h264(tmp_path / "clip.mp4", pix_fmt="yuv420p10le", num_frames=4)
    assert header_of(path).depth == 10
    with av.open(path) as container:
        extradata = container.streams.video[0].codec_context.extradata
    for cut in range(len(extradata)):
        read_header(extradata[:cut])  # never raises
    two_sets = extradata[:5] + bytes([extradata[5] + 1]) + extradata[6:]
    assert read_header(two_sets) is None and read_header(b"") is None
    assert read_header(extradata[:12]) is None


@pytest.mark.parametrize(
    ("params", "anew"),
    [
        ("keyint=8:scenecut=0", [0, 8, 16, 24, 32]),
        (
            "keyint=8:scenecut=0:open-gop=1:bframes=3",
            [0, 8, 16, 24, 32],
        ),  # recovered at once, in display order
        ("keyint=8:scenecut=0:intra-refresh=1", [0]),  # whole only after 8 frames
    ],
)
def test_where_decoding_may_begin(tmp_path, params, anew):
    path = write_h264(tmp_path / "clip.mp4", **{"x264-params": params})
    with av.open(path) as container:
        stream = container.streams.video[0]
        length = length_bytes(stream.codec_context.extradata, "h264")
        packets = [packet for packet in container.demux(stream) if packet.size]
        first = min(packet.pts for packet in packets)
        flagged = [packet for packet in packets if packet.is_keyframe]
        found = [packet for packet in packets if decoding_may_begin(bytes(packet), "h264", length)]
        numbers = [round((packet.pts - first) * stream.time_base * 25) for packet in found]
    assert numbers == sorted(numbers) and numbers[0] == 0 and set(found) <= set(flagged)
    assert len(flagged) >= 4 and len(numbers) == len(anew)
    for cut in range(0, packets[0].size, 7):
        decoding_may_begin(bytes(packets[0])[:cut], "h264", length)  # never raises


def test_a_turned_video_is_upright(tmp_path):
    path = tmp_path / "clip.mp4"
    write_h264(path, num_frames=3)
    turned = tmp_path / "turned.mp4"
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # the matrix of the track header, version 0
    quarter = [0, 1 << 16, 0, -(1 << 16) & 0xFFFFFFFF, 0, 0, 0, 0, 1 << 30]  # clockwise
    content[at : at + 36] = b"".join(value.to_bytes(4, "big") for value in quarter)
    turned.write_bytes(content)
    with decoder_class("pyav").open(path) as plain, decoder_class("pyav").open(turned) as upright:
        expected = plain.frames_at([0, 2]).rot90(-1, dims=(2, 3))
        assert (upright.frames_at([0, 2]) == expected).all()
