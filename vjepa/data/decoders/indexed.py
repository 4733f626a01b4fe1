"""Opening of videos with a packet index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vjepa.data.decoders.backends.frames import FramesDecoder, is_frames
from vjepa.data.decoders.backends.pyav import PyAVDecoder
from vjepa.data.decoders.base import Decoder, Opener, decoder_class
from vjepa.data.decoders.packet_store import PacketStore
from vjepa.errors import SettingError

READERS = ("auto", "pyav")  # the others read a file's packets themselves


@dataclass(frozen=True)
class IndexedOpener:
    """An opener of videos with PyAV that looks up their packets in `store`; images need no index."""

    store: PacketStore

    def open(self, path: str | Path) -> Decoder:
        """Open `path`; if the store does not have its packets, read them from the file."""
        if is_frames(path):
            return FramesDecoder.open(path)
        return PyAVDecoder.open(path, index=self.store.find(path))


def backend(decoder: str, index: str | None) -> Opener:
    """Return the opener of videos for a decoder, with a packet index if there is one.

    Raises:
        ValueError: If the decoder is not known, or does not read packet indices.
        UsageError: If the file is not a packet index.
    """
    if index is None:
        return decoder_class(decoder)
    if decoder not in READERS:
        raise SettingError(
            f"decoder {decoder!r} with index {index}: only {' and '.join(READERS)} read one. Omit one of the two."
        )
    return IndexedOpener(PacketStore(index))
