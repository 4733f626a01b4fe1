"""Videos opened with what a packet index says of them."""

from __future__ import annotations

from pathlib import Path

from vjepa.data.decoders.backends.frames import FramesDecoder, is_frames
from vjepa.data.decoders.backends.pyav import PyAVDecoder
from vjepa.data.decoders.base import Decoder, Opener, decoder_class
from vjepa.data.decoders.packet_store import PacketStore
from vjepa.errors import SettingError

READERS = ("auto", "pyav")  # the others read a file's packets themselves


class IndexedOpener:
    """Opens videos with PyAV, their packets looked up in `store`, and images as ever.

    Args:
        store: Where `vjepa data index` wrote.
    """

    def __init__(self, store: PacketStore) -> None:
        self._store = store

    def open(self, path: str | Path) -> Decoder:
        """Open `path`; what the store does not know is read from the file."""
        if is_frames(path):
            return FramesDecoder.open(path)
        return PyAVDecoder.open(path, index=self._store.find(path))


def backend(decoder: str, index: str | None) -> Opener:
    """What opens videos with that decoder, and with a packet index if there is one.

    Raises:
        ValueError: The decoder is not known, or does not read packet indices.
        UsageError: The index is none.
    """
    if index is None:
        return decoder_class(decoder)
    if decoder not in READERS:
        raise SettingError(
            f"decoder {decoder!r} with index {index}: only {' and '.join(READERS)} read one. Leave out the one or the "
            "other."
        )
    return IndexedOpener(PacketStore(index))
