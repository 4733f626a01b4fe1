"""Opening of videos with a packet index that is given, or grows while videos are read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from vjepa.data.decoders.auto import fastest
from vjepa.data.decoders.backends.frames import FramesDecoder, is_frames
from vjepa.data.decoders.backends.pyav import PyAVDecoder
from vjepa.data.decoders.base import Decoder, Opener, decoder_class
from vjepa.data.decoders.opening import TEMPORARY_PREFIX
from vjepa.data.decoders.packet_store import IndexedFile, PacketStore, index_file
from vjepa.data.decoders.packets import PacketIndex
from vjepa.errors import SettingError, UsageError

log = logging.getLogger(__name__)

GROWING = "auto"  # as an index: the one in the user's cache, which grows
NUM_AT_ONCE = 16  # indices are saved together, for each write waits for the disk
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


@dataclass
class GrowingOpener:
    """An opener that saves the packets of each video it opens in `store`, so that the next pass reads none."""

    store: PacketStore | None
    _unsaved: list[IndexedFile] = field(default_factory=list)
    _read_each_time: set[str] = field(default_factory=set)

    def open(self, path: str | Path) -> Decoder:
        """Open `path`; save its packets if the store does not have them."""
        if is_frames(path):
            return FramesDecoder.open(path)
        return PyAVDecoder.open(path, index=self._index(str(path)))

    def _index(self, path: str) -> PacketIndex | None:
        is_temporary = Path(path).name.startswith(TEMPORARY_PREFIX)
        if self.store is None or is_temporary or path in self._read_each_time:
            return None
        try:
            if (index := self.store.find(path)) is not None:
                return index
            if (read := index_file(path)) is None:
                self._read_each_time.add(path)
                return None
            self._unsaved.append(read)
            if len(self._unsaved) >= NUM_AT_ONCE:
                self.store.add(self._unsaved)
                self._unsaved.clear()
        except UsageError as e:
            log.info("%s; packets are read each time a video is opened", e)
            self.store = None
            return None
        return read.packets


def cached_index() -> Path:
    """Return the packet index in the user's cache."""
    return Path.home() / ".cache" / "vjepa" / "packets.sqlite"


def _growing() -> GrowingOpener:
    try:
        return GrowingOpener(PacketStore.create(cached_index()))
    except (UsageError, OSError) as e:  # a cache that cannot be written, or of another version
        log.info("%s; packets are read each time a video is opened", e)
        return GrowingOpener(None)


def backend(decoder: str, index: str | None) -> Opener:
    """Return the opener of videos for a decoder, with a packet index if there is one.

    The index is a file that `vjepa data index` wrote, or "auto" for the one in the user's cache, which grows.

    Raises:
        ValueError: If the decoder is not known, or does not read packet indices.
        UsageError: If the file is not a packet index.
    """
    chosen = fastest() if (decoder, index) == ("auto", GROWING) else decoder
    if index is None or (index == GROWING and chosen not in READERS):
        return decoder_class(decoder)
    if decoder not in READERS:
        raise SettingError(
            f"decoder {decoder!r} with index {index}: only {' and '.join(READERS)} read one. Omit one of the two."
        )
    if index == GROWING:
        return _growing()
    return IndexedOpener(PacketStore(index))
