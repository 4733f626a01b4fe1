import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.videos import moving_frames
from vjepa.data import ClipSampler, TrainTransform, VideoClips, VideoDataModule, read_clip, read_manifest

HOWTO = Path(__file__).parents[3] / "docs" / "howto" / "decoder.md"


def test_the_decoder_of_the_howto_works_from_outside(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", HOWTO.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "my_decoder.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_decoder", raising=False)
    np.save(tmp_path / "clip.npy", moving_frames(20))
    (tmp_path / "broken.npy").write_text("no array")
    (tmp_path / "clips.csv").write_text("path\nclip.npy\nbroken.npy\n")
    name = "my_decoder.NumpyDecoder"
    clip = read_clip(tmp_path / "clip.npy", num_frames=4, fps=5.0, decoder=name)
    assert clip.frames.permute(0, 2, 3, 1).numpy().tolist() == moving_frames(20)[[0, 2, 4, 6]].tolist()
    clips = VideoClips(
        read_manifest(tmp_path / "clips.csv"),
        sampler=ClipSampler(num_frames=4, fps=None),
        transform=TrainTransform(size=32),
        decoder=name,
    )
    assert clips[0].video.shape == (3, 4, 32, 32)
    assert "not an array of frames" in clips[1].failure.reason
    data = VideoDataModule(train=str(tmp_path / "clips.csv"), decoder=name)
    data.setup("fit")
    assert len(data.clips("train")) == 2
    with pytest.raises(ValueError, match="Use one of auto, pyav"):
        VideoDataModule(train=str(tmp_path / "clips.csv"), decoder="my_decoder.Nothing").setup("fit")
