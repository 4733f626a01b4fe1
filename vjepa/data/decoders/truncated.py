"""Decoder of videos whose end is missing, up to the last certain frame."""

from __future__ import annotations

from pathlib import Path

from vjepa.data.decoders.backends.pyav import PyAVDecoder
from vjepa.data.decoders.base import Decoder
from vjepa.data.decoders.packets import index_packets
from vjepa.data.decoders.stream import open_video_file


class TruncatedDecoder(Decoder):
    """A decoder for files that other backends refuse as truncated; it returns the frames before the damage.

    The last packet of the file may be incomplete: it is omitted, with all frames that might follow it.
    """

    @classmethod
    def open(cls, path: str | Path) -> Decoder:
        """Open `path` up to the damage."""
        video = open_video_file(str(path))
        with video.container:
            index = index_packets(str(path), video, is_truncated=True)
        return PyAVDecoder.open(path, index=index)
