"""Several data sets in one run: whose turn it is, what a batch holds, where it goes on."""

import numpy as np
import pytest
import torch

from tests.data.test_datamodule import Watcher, run_and_resume, trainer
from tests.data.test_datamodule import pytestmark as quiet
from tests.videos import write_broken, write_manifest
from vjepa.data import (
    ClipSampler,
    DecodeError,
    Decoder,
    MixturePart,
    TooManyUnreadableClipsError,
    TrainTransform,
    VideoDataModule,
)
from vjepa.data.loading.mixture import MixtureSchedule

pytestmark = quiet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    write_manifest(folder, 9, name="videos.csv", num_frames=4, height=16, width=16)
    write_manifest(folder, 7, name="images.csv", num_frames=2, height=16, width=16)
    return folder


class Refuses(Decoder):
    """A backend that opens nothing."""

    num_frames, fps, timestamps, frames_at = 0, 0.0, np.empty(0), None

    @classmethod
    def open(cls, path):
        raise DecodeError(path, "refused")


def mixture(folder, *, images=None, **options):
    parts = [
        MixturePart(source=str(folder / "videos.csv"), weight=2.0),
        MixturePart(
            source=str(folder / "images.csv"),
            batch_size=3,
            sampler=ClipSampler(num_frames=1, fps=None),
            transform=TrainTransform(size=12),
            **(images or {}),
        ),
    ]
    sampler, transform = ClipSampler(num_frames=2, fps=None), TrainTransform(size=8)
    return VideoDataModule(parts=parts, sampler=sampler, transform=transform, batch_size=2, **options)


def test_parts_come_by_weight_in_any_stretch_and_under_any_accumulation():
    weights = [0.335, 0.1, 0.565]
    schedule = MixtureSchedule(weights, seed=3)
    parts = np.array([schedule.part(i) for i in range(6000)])
    for start in (0, 1234, 5000):
        counts = np.bincount(parts[start : start + 1000], minlength=3)
        assert abs(counts - 1000 * np.array(weights)).max() <= 4
    for step in (2, 3, 8):
        counts = np.bincount(parts[::step], minlength=3)
        assert abs(counts - len(parts[::step]) * np.array(weights)).max() <= 8
    assert [schedule.part(i) for i in range(50)] != [
        MixtureSchedule(weights, seed=4).part(i) for i in range(50)
    ]
    assert {MixtureSchedule([1.0], seed=0).part(i) for i in range(10)} == {0}


def test_each_batch_is_of_one_data_set_with_its_own_shape(folder):
    data = mixture(folder)
    data.setup("fit")
    loader = data.train_dataloader()
    assert len(loader) == 9 // 2 + 7 // 3
    batches = [batch for _ in range(5) for batch in loader]
    shapes = {(batch.part, tuple(batch.video.shape)) for batch in batches}
    assert shapes == {(0, (2, 3, 2, 8, 8)), (1, (3, 3, 1, 12, 12))}
    assert sum(batch.part == 0 for batch in batches) == pytest.approx(len(batches) * 2 / 3, abs=2)
    assert [batch.turn for batch in batches] == [(0, i) for i in range(len(batches))]
    for part, size in ((0, 4), (1, 2)):  # each has epochs of its own, which hold no clip twice
        rows = [batch.index.tolist() for batch in batches if batch.part == part]
        for start in range(0, len(rows) - size, size):
            epoch = sum(rows[start : start + size], [])
            assert len(set(epoch)) == len(epoch)


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_change_nothing(folder, num_workers):
    seen = []
    for workers in (0, num_workers):
        data = mixture(folder, num_workers=workers)
        data.setup("fit")
        loader = data.train_dataloader()
        seen.append([(b.part, b.index.tolist(), b.video.sum().item()) for _ in range(3) for b in loader])
        loader.close()
    assert seen[0] == seen[1]


@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 3}, {"accumulate_grad_batches": 2}])
@pytest.mark.parametrize(("batches", "hook"), [(4, "on_train_batch_end"), (6, "on_train_epoch_end")])
def test_a_resumed_mixture_sees_what_an_uninterrupted_one_does(folder, tmp_path, batches, hook, options):
    seen = run_and_resume(folder, tmp_path, batches, hook, {"max_epochs": 3} | options, make=mixture)
    assert len(seen) == (9 if "limit_train_batches" in options else 18)


def test_every_part_may_have_broken_files(folder, tmp_path):
    write_manifest(tmp_path, 9, name="videos.csv", num_frames=4, height=16, width=16)
    write_manifest(tmp_path, 7, name="images.csv", num_frames=2, height=16, width=16)
    clean = Watcher()
    trainer(tmp_path, max_epochs=4).fit(clean, datamodule=mixture(folder))
    broken = []
    for name in ("videos", "images"):
        files = write_broken(tmp_path / name)
        broken += [str(file) for file in files]
        with (tmp_path / f"{name}.csv").open("a") as file:
            file.writelines(f"{name}/{path.name},left\n" for path in files)
    torn, data = Watcher(), mixture(tmp_path)
    trainer(tmp_path, max_epochs=4).fit(torn, datamodule=data)
    assert set(data.ledger.reasons) == set(broken)
    shared = min(len(clean.seen), len(torn.seen))
    assert [s[2:] for s in clean.seen[:shared]] == [s[2:] for s in torn.seen[:shared]]


def test_the_first_part_stands_for_the_training_clips(folder):
    data = mixture(folder)
    data.setup("fit")
    assert len(data.clips("train")) == 9 and data.sources["train"] == str(folder / "videos.csv")
    assert data.clips("train")[0].video.shape == (3, 2, 8, 8)


def test_a_part_has_a_decoder_and_a_root_of_its_own(folder, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text("path\n" + "".join(f"images/clip_{i:03d}.mp4\n" for i in range(7)))
    parts = [
        MixturePart(source=str(listed), root=str(folder), decoder="tests.data.loading.test_mixture.Refuses")
    ]
    data = VideoDataModule(parts=parts, sampler=ClipSampler(num_frames=2, fps=None), batch_size=2)
    data.setup("fit")
    with pytest.raises(TooManyUnreadableClipsError, match="7 unreadable files: .*clip_00.*refused"):
        next(iter(data.train_dataloader()))
    with pytest.raises(ValueError, match="nothere"):
        VideoDataModule(parts=[MixturePart(source=str(listed), decoder="nothere")])


def test_weights_of_rows_are_kept(folder, tmp_path):
    rows = "".join(f"videos/clip_{i:03d}.mp4,{weight}\n" for i, weight in enumerate([0, 0, 1, 3]))
    manifest = folder / "weighted.csv"
    manifest.write_text("path,weight\n" + rows)
    data = VideoDataModule(
        train=str(manifest),
        batch_size=4,
        sampler=ClipSampler(num_frames=2, fps=None),
        transform=TrainTransform(size=8),
    )
    data.setup("fit")
    loader = data.train_dataloader()
    seen = torch.cat([batch.index for _ in range(40) for batch in loader])
    assert set(seen.tolist()) == {2, 3} and (seen == 3).sum() > 2 * (seen == 2).sum()
    manifest.write_text("path,weight\nvideos/clip_000.mp4,-1\n")
    data = VideoDataModule(train=str(manifest), batch_size=1)
    data.setup("fit")
    with pytest.raises(ValueError, match=r"weighted.csv:2: weight -1. Give weights from 0"):
        data.train_dataloader()
    manifest.write_text("path,weight\nvideos/clip_000.mp4,1\n")
    data = VideoDataModule(train=str(manifest), batch_size=1)
    data.setup("fit")
    assert len(data.train_dataloader()) == 1


def test_what_cannot_be_is_refused_with_advice(folder):
    source = str(folder / "videos.csv")
    with pytest.raises(ValueError, match="weight 0, .*must be above 0.*Omit a part"):
        MixturePart(source=source, weight=0.0)
    with pytest.raises(ValueError, match="at least 1"):
        MixturePart(source=source, batch_size=0)
    with pytest.raises(ValueError, match="Add the one to the others"):
        VideoDataModule(train=source, parts=[MixturePart(source=source)])


def test_resuming_with_other_parts_is_refused(folder, tmp_path):
    data = mixture(folder)
    data.setup("fit")
    state = data.train_dataloader().position()
    alone = VideoDataModule(train=str(folder / "videos.csv"), batch_size=2)
    alone.setup("fit")
    with pytest.raises(
        ValueError, match="saved with 2 data sets, now there are 1. Give --data.parts the same"
    ):
        alone.train_dataloader().go_to(state)
    mixture_again = mixture(folder)
    mixture_again.setup("fit")
    mixture_again.train_dataloader().go_to(state)


def test_another_seed_in_mid_epoch_is_told(folder, caplog):
    states = []
    for seed in (0, 0, 1):
        data = mixture(folder, seed=seed)
        data.setup("fit")
        loader = data.train_dataloader()
        states.append(loader.position())
        caplog.clear()
        loader.go_to(states[0])
        assert ("its epoch continues in a new order" in caplog.text) == (seed == 1)
