"""A decoder of one's own that hangs, crashes or raises where the file's name says so."""

import os
import signal
import time
from pathlib import Path

from vjepa.data.decoders.backends.pyav import PyAVDecoder


class OddDecoder(PyAVDecoder):
    @classmethod
    def open(cls, path):
        stem = Path(path).stem
        if stem == "hangs":
            time.sleep(3600)
        if stem == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        if stem == "raises":
            raise KeyError("a bug")
        return super().open(path)
