"""What the header of a packet's picture tells: whether it is shown, and whether it refers to no other picture.

Sources: RFC 6386, 9.1 (VP8); VP9 Bitstream Specification, 6.2 and annex B; AV1 Bitstream Specification, 5.3 and
7.6.1; ISO/IEC 11172-2, 13818-2 and 14496-2 (MPEG-1, 2 and 4).
"""

from __future__ import annotations

VP8, VP9, AV1 = ("vp8", "libvpx"), ("vp9", "libvpx-vp9"), ("av1", "libdav1d")
VP9_SUPERFRAME, VP9_RESERVED_BIT = 0xC0, 3  # mark of the last byte; the profile with one more bit
AV1_SEQUENCE_HEADER = 1  # kind of a unit that stands where decoding may begin


def is_shown(packet: bytes, codec: str) -> bool:
    """Return whether a packet gives a frame; some of VP8 and VP9 only serve as references.

    A superframe of VP9 ends with a shown frame.
    """
    if codec in VP8:
        return bool(packet[0] >> 4 & 1)
    if codec in VP9 and packet[-1] & 0xE0 != VP9_SUPERFRAME:
        at = _vp9_flags(packet)
        return bool(packet[0] >> at & 1 or packet[0] >> (at - 2) & 1)  # shows an earlier frame, or itself
    return True


def is_intra(packet: bytes, codec: str) -> bool:
    """Return whether a picture refers to no other; True for codecs whose containers can be trusted.

    A MOV without a table of keyframes marks every packet as one, and so do fragments that hide it in sample groups.
    """
    if codec in VP8:
        return not packet[0] & 1
    if codec in VP9:
        at = _vp9_flags(packet)
        return not packet[0] >> at & 1 and not packet[0] >> (at - 1) & 1
    if codec in AV1:
        return _begins_a_sequence(packet)
    if codec in ("mpeg1video", "mpeg2video"):
        at = packet.find(b"\x00\x00\x01\x00")
        return at < 0 or at + 5 >= len(packet) or packet[at + 5] >> 3 & 7 == 1
    if codec == "mpeg4":
        at = packet.find(b"\x00\x00\x01\xb6")
        return at < 0 or at + 4 >= len(packet) or packet[at + 4] >> 6 == 0
    return True


def _vp9_flags(packet: bytes) -> int:
    """Return the place of the bit "shows an existing frame" in the first byte; kind and "shown" follow it."""
    profile = (packet[0] >> 5 & 1) | (packet[0] >> 4 & 1) << 1
    return 2 if profile == VP9_RESERVED_BIT else 3


def _begins_a_sequence(packet: bytes) -> bool:
    """Return whether one of an AV1 packet's units is a sequence header."""
    at = 0
    while at < len(packet):
        kind, has_extension, has_size = packet[at] >> 3 & 15, packet[at] >> 2 & 1, packet[at] >> 1 & 1
        if kind == AV1_SEQUENCE_HEADER:
            return True
        at += 1 + has_extension
        if not has_size:
            return False
        size = 0
        for i in range(8):  # leb128
            byte = packet[at] if at < len(packet) else 0
            size, at = size | (byte & 127) << 7 * i, at + 1
            if not byte & 128:
                break
        at += size
    return False
