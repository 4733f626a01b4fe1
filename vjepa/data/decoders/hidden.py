"""Packets of VP8 and VP9 whose frames only serve as references and are never shown."""

from __future__ import annotations

import av

PROFILE_WITH_RESERVED_BIT = 3


def is_shown(packet: av.Packet, codec: str) -> bool:
    """Return whether a packet gives a frame to show.

    Source: RFC 6386, 9.1 (VP8); VP9 Bitstream Specification, 6.2 and annex B (a superframe ends with a shown frame).
    """
    if codec not in ("vp8", "libvpx", "vp9", "libvpx-vp9"):
        return True
    content = memoryview(packet)
    first = content[0]
    if codec in ("vp8", "libvpx"):
        return bool(first >> 4 & 1)
    if content[-1] & 0xE0 == 0xC0:  # the index of a superframe
        return True
    profile = (first >> 5 & 1) | (first >> 4 & 1) << 1
    at = 2 if profile == PROFILE_WITH_RESERVED_BIT else 3
    shows_existing, shows = first >> at & 1, first >> (at - 2) & 1
    return bool(shows_existing or shows)
