"""A decoder of one's own that breaks the interface is an unreadable file with a reason, wherever it is used."""

import sys

import numpy as np
import pytest
import torch

from vjepa.commands.data_shard import shard_command
from vjepa.data import DecodeError, open_video
from vjepa.data.decoders import limited
from vjepa.data.decoders.base import Decoder
from vjepa.data.decoders.limited import opener
from vjepa.data.shards import writer

MINE = '''
import faulthandler, os, time
import numpy as np, torch
from vjepa.data import Decoder

TIMES = {
    "falls": np.array([0.0, 0.5, 0.25]), "nan": np.array([0.0, np.nan]), "none": np.array([]),
    "list": [0.0, 0.1], "whole": np.arange(4),
}

class Loose(Decoder):
    """What it does is in the file's name."""

    def __init__(self, name):
        self.name = name

    @classmethod
    def open(cls, path):
        return cls(os.path.basename(str(path)).partition(".")[0])

    @property
    def timestamps(self):
        return TIMES.get(self.name, np.arange(4) / 4)

    def frames_at(self, indices):
        if self.name == "hangs":
            time.sleep(100)
        if self.name == "aborts":
            faulthandler.disable()
            os.abort()
        count = len(indices) - (self.name == "fewer")
        frames = torch.zeros(count, 4 if self.name == "alpha" else 3, 4, 6, dtype=torch.uint8)
        return frames.float() if self.name == "float" else frames[0] if self.name == "flat" else frames

    def close(self):
        pass
'''
BROKEN = {
    "falls": "frame 2 is at 0.25 s, before frame 1 at 0.5 s",
    "nan": "the time of frame 1 is not finite",
    "none": "there is no frame",
    "list": r"timestamps are list, not float64 \(n,\)",
    "whole": r"timestamps are int64 \(4,\), not float64",
    "fewer": r"2 frames were requested, the result is uint8 \(1, 3, 4, 6\), not uint8 \(2, 3, H, W\)",
    "alpha": r"uint8 \(2, 4, 4, 6\)",
    "float": r"float32 \(2, 3, 4, 6\)",
    "flat": r"uint8 \(3, 4, 6\)",
}


@pytest.fixture
def loose(tmp_path, monkeypatch):
    (tmp_path / "loose_decoder.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loose_decoder", raising=False)
    return "loose_decoder.Loose"


@pytest.mark.parametrize(
    "seconds", [0.0, pytest.param(20.0, marks=pytest.mark.skipif(not limited.POSSIBLE, reason="Linux"))]
)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named(loose, tmp_path, name, seconds):
    with pytest.raises(DecodeError, match=f"{name}.mp4: .*{BROKEN[name]}.*docs/howto/decoder.md"):
        with open_video(opener(loose, seconds), tmp_path / f"{name}.mp4") as video:
            video.frames_at([0, 1])


def test_a_decoder_that_keeps_its_promises_passes(loose, tmp_path):
    with open_video(opener(loose, 0.0), tmp_path / "good.mp4") as video:
        assert isinstance(video, Decoder) and video.num_frames == 4 and video.fps == 4.0
        assert torch.equal(video.frames_at([3, 0]), torch.zeros(2, 3, 4, 6, dtype=torch.uint8))
        assert video.timestamps.tolist() == (np.arange(4) / 4).tolist()


@pytest.mark.skipif(not limited.POSSIBLE, reason="a limit needs Linux")
def test_a_shard_omits_what_hangs_aborts_or_is_broken(loose, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "DEFAULT_SECONDS", 0.3)
    names = ["good.mp4", "hangs.mp4", "aborts.mp4", "falls.mp4", "good.webm"]
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(name.encode())
    report = shard_command(source=str(folder), out=str(tmp_path / "out"), decoder=loose)
    reasons = {entry["path"].rpartition("/")[2]: entry["reason"] for entry in report.figures["left_out"]}
    assert report.figures["num_clips"] == 2 and sorted(reasons) == ["aborts.mp4", "falls.mp4", "hangs.mp4"]
    assert "hung" in reasons["hangs.mp4"] and "SIGABRT" in reasons["aborts.mp4"]
