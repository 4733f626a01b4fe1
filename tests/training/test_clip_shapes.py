"""Clips that the encoder cannot cut into tokens are refused before the run."""

import pytest

from tests.checkpoints.given import tiny_encoder
from vjepa.data import ClipSampler, TrainTransform, VideoDataModule
from vjepa.training.clip_shapes import check_clips


@pytest.mark.parametrize(
    ("num_frames", "size", "told"),
    [(4, 30, "patches of 8.*--data.transform.size"), (5, 32, "tubelets of 2.*--data.sampler.num_frames")],
)
def test_what_would_not_be_seen_is_refused(num_frames, size, told):
    data = VideoDataModule(sampler=ClipSampler(num_frames=num_frames), transform=TrainTransform(size=size))
    with pytest.raises(ValueError, match=told):
        check_clips(tiny_encoder(), data)


def test_another_size_than_the_encoders_is_said(caplog):
    for size, told in ((32, False), (40, True)):
        data = VideoDataModule(sampler=ClipSampler(num_frames=1), transform=TrainTransform(size=size))
        check_clips(tiny_encoder(), data)
        assert ("the encoder's native size is 32 x 32" in caplog.text) == told
