"""Named tensors follow their clips from the reader to the batch, past failures, and through workers and resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.videos import write_broken, write_manifest
from vjepa.data import ClipSampler, Reading, TrainTransform, VideoDataModule
from vjepa.errors import DecodeError


def times_of(row, seconds):
    """The frames' times, and a mark of the row's file."""
    return {"seconds": torch.from_numpy(seconds), "file": torch.tensor([len(row.path), ord(row.path[-5])])}


class TimesWithout:
    """As `times_of`, but those of one file cannot be read, or have another shape or name."""

    def __init__(self, end: str, wrong: dict | None = None) -> None:
        self.end, self.wrong = end, wrong

    def __call__(self, row, seconds):
        if not row.path.endswith(self.end):
            return times_of(row, seconds)
        if self.wrong is None:
            raise DecodeError(row.path, "no actions")
        return times_of(row, seconds) | self.wrong


def data(folder, *, num_workers: int = 0, **reading) -> VideoDataModule:
    module = VideoDataModule(
        train=str(folder),
        sampler=ClipSampler(num_frames=3, fps=4.0),
        transform=TrainTransform(size=16),
        batch_size=4,
        num_workers=num_workers,
        reading=Reading(**reading),
    )
    module.setup("fit")
    return module


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_manifest(folder, 9, num_frames=12, height=20, width=20)
    return folder / "train"


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_extras_follow_their_clips(clips, tmp_path, num_workers):
    (tmp_path / "all").mkdir()
    for path in clips.iterdir():
        (tmp_path / "all" / path.name).symlink_to(path)
    write_broken(tmp_path / "all")
    module = data(tmp_path / "all", num_workers=num_workers, extras=times_of, clips_per_video=2)
    loader = module.train_dataloader()
    batches = list(loader)
    loader.close()
    assert len(batches) >= 4 and all(len(batch) == 4 for batch in batches)
    starts = []
    for batch in batches:
        files = torch.tensor([[len(p), ord(p[-5])] for p in module.paths_of(batch)])
        assert torch.equal(batch.extra("file"), files)
        seconds = batch.extra("seconds")
        assert seconds.shape == (4, 3)
        torch.testing.assert_close(seconds.diff(dim=1), torch.full((4, 2), 0.25, dtype=torch.float64))
        starts += seconds[:, 0].tolist()
    pairs = np.array(starts).reshape(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).any()  # each clip of a video has its own


def test_extras_that_cannot_be_read_make_a_failure(clips):
    batches = list(data(clips, extras=TimesWithout("3.mp4")).train_dataloader())
    failures = [failure for batch in batches for failure in batch.failures]
    assert [failure.reason for failure in failures] == ["no actions"]
    assert not any("3.mp4" in failure.path for failure in failures[1:])


def test_extras_of_other_shapes_or_names_are_refused_and_the_advice_holds(clips):
    for wrong in ({"seconds": torch.zeros(2)}, {"more": torch.zeros(1)}):
        module = data(clips, extras=TimesWithout("4.mp4", wrong))
        with pytest.raises(ValueError, match="Return tensors of one shape for all clips"):
            list(module.train_dataloader())
    assert all(len(batch.extras) == 2 for batch in data(clips, extras=times_of).train_dataloader())


def test_validation_clips_have_extras_too(clips):
    module = data(clips, extras=times_of)
    sample = module.clips("train")[0]
    assert sample.extras[0]["seconds"].tolist() == sorted(sample.extras[0]["seconds"].tolist())
    with pytest.raises(
        ValueError, match="the clips come without 'actions'; beside video and label they have seconds"
    ):
        next(iter(module.eval_dataloader("train"))).extra("actions")
