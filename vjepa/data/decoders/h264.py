"""What H.264 and HEVC say of their pictures: where decoding may begin, and which may stay undecoded.

Source: ITU-T H.264, 7.3.2.1.1 (sequence parameter set) and ISO/IEC 14496-15 (its place in an mp4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# profiles whose parameter sets have their chroma and depth (7.3.2.1.1)
WITH_CHROMA = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
ONE_SET = 0xE1  # in an avcC box: three reserved bits, one sequence parameter set
PICTURE, IDR_PICTURE, EXTRA_INFORMATION = 1, 5, 6  # kinds of units (table 7-1)
RECOVERY_POINT = 6  # kind of a message in extra information
NUM_SCALING_LISTS = 8  # 12 with 4:4:4
START_CODE = b"\x00\x00\x01"
HEVC_NOT_PICTURES = 32  # kinds of units from here on have no picture (ITU-T H.265, table 7-1)
HEVC_RANDOM_ACCESS = range(16, 22)  # BLA, IDR and CRA pictures


@dataclass(frozen=True)
class StreamHeader:
    """Facts of a stream: `chroma` 1 for 4:2:0, `depth` bits per sample, `progressive`, `gaps` in its frame numbers."""

    chroma: int
    depth: int
    progressive: bool
    gaps: bool

    @property
    def may_skip(self) -> bool:
        """Whether non-reference pictures can be skipped while the others stay the same, bit for bit.

        In interlaced streams one field of a picture may be a reference while the other is not. Streams with 4:4:4
        were seen to change. If gaps are allowed, a decoder invents pictures.
        """
        return self.chroma <= 1 and self.progressive and not self.gaps


def read_header(extradata: bytes) -> StreamHeader | None:
    """Return the header in an mp4's or Matroska's codec data, or `None` if it is not simple or there are several.

    >>> read_header(bytes.fromhex("0164001effe1001767640000"))
    """
    if len(extradata) < 9 or extradata[0] != 1 or extradata[5] | 0xE0 != ONE_SET:
        return None
    size = int.from_bytes(extradata[6:8], "big")
    unit = extradata[8 : 8 + size]
    if len(unit) != size or size < 5:
        return None
    try:
        return _parameter_set(_Bits(_without_escapes(unit[1:])))
    except StopIteration:  # the set ends before it should
        return None


def decoding_may_begin(packet: bytes, codec: str, length_bytes: int) -> bool:
    """Return whether decoding may begin at this packet and give the same frames as decoding from the start.

    That is true for an IDR picture, for a recovery point of H.264 that recovers at once, and for a random access
    picture of HEVC. Containers mark other packets as keyframes too: with intra refresh the picture is complete only
    some frames later, and not always then.

    Args:
        packet: The content of a packet.
        codec: "h264" or "hevc".
        length_bytes: Size of the length before each unit; 0 if start codes separate the units.
    """
    for unit in _units(packet, length_bytes):
        if codec == "hevc":
            kind = unit[0] >> 1 & 0x3F
            if kind < HEVC_NOT_PICTURES:
                return kind in HEVC_RANDOM_ACCESS
            continue
        kind = unit[0] & 0x1F
        if kind == IDR_PICTURE or (kind == EXTRA_INFORMATION and _recovers_at_once(unit)):
            return True
        if kind == PICTURE:
            return False
    return False


def length_bytes(extradata: bytes, codec: str) -> int:
    """Return the size of the length before each unit of a packet; 0 if start codes separate the units."""
    at = {"h264": 4, "hevc": 21}[codec]
    return (extradata[at] & 3) + 1 if len(extradata) > at and extradata[0] == 1 else 0


def _units(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yield the units of a packet that have content."""
    if not length_bytes:
        yield from (unit for unit in packet.split(START_CODE)[1:] if unit)
        return
    at = 0
    while at + length_bytes < len(packet):
        size = int.from_bytes(packet[at : at + length_bytes], "big")
        if unit := packet[at + length_bytes : at + length_bytes + size]:
            yield unit
        at += length_bytes + size


def _recovers_at_once(unit: bytes) -> bool:
    """Return whether one of a unit's messages is a recovery point of 0 frames (D.1.8)."""
    content, at = _without_escapes(unit[1:]), 0
    while at + 2 < len(content):
        numbers = []
        for _ in range(2):  # kind and size of the message: bytes of 255 are added to the next byte
            number = 0
            while at < len(content) and content[at] == 255:
                number, at = number + 255, at + 1
            numbers.append(number + (content[at] if at < len(content) else 0))
            at += 1
        kind, size = numbers
        if kind == RECOVERY_POINT and at < len(content):
            return bool(content[at] & 0x80)  # 0 in Exp-Golomb code
        at += size
    return False


def _without_escapes(unit: bytes) -> bytes:
    """Undo the emulation prevention: replace 00 00 03 by 00 00."""
    return unit.replace(b"\x00\x00\x03", b"\x00\x00")


class _Bits:
    """The bits of a parameter set in order, with a StopIteration at their end."""

    def __init__(self, content: bytes) -> None:
        self._bits: Iterator[int] = (byte >> shift & 1 for byte in content for shift in range(7, -1, -1))

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | next(self._bits)
        return value

    def golomb(self) -> int:
        """Read an unsigned number in Exp-Golomb code (9.1)."""
        zeros = 0
        while not next(self._bits):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _parameter_set(bits: _Bits) -> StreamHeader:
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.golomb()  # its id
    chroma, depth = 1, 8
    if profile in WITH_CHROMA:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        depth = 8 + bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            _skip_scaling(bits, NUM_SCALING_LISTS if chroma != 3 else 12)
    bits.golomb()  # length of frame numbers
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        for _ in range(2):
            bits.signed()
        for _ in range(bits.golomb()):
            bits.signed()
    bits.golomb()  # reference frames
    gaps = bool(bits.take(1))
    for _ in range(2):
        bits.golomb()  # width and height
    return StreamHeader(chroma=chroma, depth=depth, progressive=bool(bits.take(1)), gaps=gaps)


def _skip_scaling(bits: _Bits, count: int) -> None:
    """Skip the scaling lists (7.3.2.1.1.1): six have 16 numbers, the others 64."""
    for i in range(count):
        if not bits.take(1):
            continue
        last = following = 8
        for _ in range(16 if i < 6 else 64):
            if following:
                following = (last + bits.signed() + 256) % 256
            last = following or last
