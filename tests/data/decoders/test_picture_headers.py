"""What the headers of packets tell, against the keyframes of the container and the frames of the decoder."""

import av
import pytest

from tests.given.media import GOP, encode
from vjepa.data.decoders.picture_headers import is_intra, is_shown


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("vp8", "webm"),
        ("vp9", "webm"),
        ("vp9", "mp4"),
        ("av1", "mp4"),
        ("mpeg2", "ts"),
        ("mpeg1", "mpg"),
        ("mpeg4", "mp4"),
    ],
)
def test_headers_agree_with_container_and_decoder(codec, suffix, tmp_path):
    with av.open(str(encode(tmp_path / f"v.{suffix}", codec, num_frames=GOP + 8))) as container:
        stream = container.streams.video[0]
        name = stream.codec_context.name
        packets = [packet for packet in container.demux(stream) if packet.size]
    flagged = [packet.is_keyframe for packet in packets]
    assert [is_intra(bytes(packet), name) for packet in packets] == flagged and 1 < sum(flagged) < len(
        packets
    )
    assert sum(is_shown(bytes(packet), name) for packet in packets) == GOP + 8


def test_a_packet_cut_anywhere_raises_nothing(tmp_path):
    with av.open(str(encode(tmp_path / "v.mp4", "av1", num_frames=2))) as container:
        packet = bytes(next(container.demux(video=0)))
    for end in range(1, 60):
        is_intra(packet[:end], "av1")
