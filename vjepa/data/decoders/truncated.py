"""Videos whose end is missing, read up to where nothing is in doubt."""

from __future__ import annotations

from pathlib import Path

from vjepa.data.decoders.backends.pyav import PyAVDecoder
from vjepa.data.decoders.base import Decoder
from vjepa.data.decoders.packets import index_packets, open_video_file


class CutOffDecoder(Decoder):
    """Opens what other backends refuse as truncated; its frames are those before the damage.

    What comes last in the file may be half a frame: it is left out, with all frames that might lie beyond it.
    """

    @classmethod
    def open(cls, path: str | Path) -> Decoder:
        """Open `path` as far as it goes."""
        video = open_video_file(str(path))
        with video.container:
            index = index_packets(str(path), video, is_cut_off=True)
        return PyAVDecoder.open(path, index=index)
