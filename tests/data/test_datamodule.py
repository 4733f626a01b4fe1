import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.videos import write_broken, write_manifest
from vjepa.data import (
    ClipSampler,
    ManifestError,
    Reading,
    TooManyUnreadableClipsError,
    TrainTransform,
    VideoDataModule,
)
from vjepa.data.loading.order import EvalBatches, epoch_order
from vjepa.data.manifests.identity import row_identities
from vjepa.data.manifests.reader import read_manifest
from vjepa.worlds import WorldConfig

# lightning and torch speak of each other, and of the one process that decoding takes here
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{text}.*")
    for text in (
        "LeafSpec",
        "does not have many workers",
        "excessive worker creation",
        "use of fork\\(\\) may lead to deadlocks",
    )
]
NUM_CLIPS, BATCH = 13, 3  # four batches an epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_manifest(folder, NUM_CLIPS, num_frames=4, height=16, width=16)
    write_manifest(folder, 4, name="val.csv", num_frames=4, height=16, width=16)
    return folder


def datamodule(folder, **options):
    options = {"val": str(folder / "val.csv"), "batch_size": BATCH} | options
    return VideoDataModule(
        train=str(folder / "train.csv"),
        sampler=ClipSampler(num_frames=2, fps=None),
        transform=TrainTransform(size=8),
        **options,
    )


class Watcher(L.LightningModule):
    """Learns one number, and writes down which clips it was trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []
        self.stop_in = None

    def training_step(self, batch, batch_idx):
        if self.stop_in == len(self.seen):
            raise KeyboardInterrupt
        self.seen.append(
            (self.trainer.current_epoch, batch_idx, batch.index.tolist(), batch.video.sum().item())
        )
        return ((self.weight - batch.video.mean()) ** 2).mean()

    def validation_step(self, batch, batch_idx):
        assert len(batch) or batch.failures

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAfter(Callback):
    """Saves after the given batch of training, from the hook given, and stops there as a killed run would."""

    def __init__(self, path, batches, hook):
        self.path, self.batches, self.count = path, batches, 0
        setattr(self, hook, self._save)

    def on_train_batch_end(self, trainer, module, *_):
        self.count += 1

    def _save(self, trainer, module, *_):
        self.count += "on_train_batch_end" in self.__dict__
        if self.count == self.batches:
            trainer.save_checkpoint(self.path)
            module.stop_in = len(module.seen)  # the next batch is fetched, but not trained on


def trainer(tmp_path, **options):
    options = {"max_epochs": 3} | options
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def run_and_resume(folder, tmp_path, batches, hook, options, *, make=datamodule, **data):
    whole = Watcher()
    trainer(tmp_path, **options).fit(whole, datamodule=make(folder, **data))
    begun = Watcher()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        save = SaveAfter(tmp_path / "mid.ckpt", batches, hook)
        trainer(tmp_path, callbacks=[save], **options).fit(begun, datamodule=make(folder, **data))
    resumed = Watcher()
    fit = trainer(tmp_path, **options).fit
    fit(resumed, datamodule=make(folder, **data), ckpt_path=tmp_path / "mid.ckpt")
    assert begun.seen == whole.seen[:batches]
    assert resumed.seen == whole.seen[batches:]
    assert torch.equal(resumed.weight, whole.weight)
    return whole.seen


@pytest.mark.parametrize(
    ("batches", "hook", "options"),
    [
        (2, "on_train_batch_end", {}),
        (6, "on_train_batch_end", {}),
        (4, "on_train_batch_end", {}),  # the last batch of an epoch
        (8, "on_train_epoch_end", {}),
        (4, "on_validation_end", {}),
        (8, "on_validation_end", {"max_epochs": -1, "max_steps": 12}),
        (6, "on_train_epoch_end", {"limit_train_batches": 3, "max_epochs": -1, "max_steps": 9}),
        (6, "on_validation_end", {"val_check_interval": 2}),
        (6, "on_train_batch_end", {"accumulate_grad_batches": 2}),
        (6, "on_train_batch_end", {"max_epochs": -1, "max_steps": 12}),
        (8, "on_train_epoch_end", {"max_epochs": -1, "max_steps": 12}),
        (4, "on_train_batch_end", {"max_epochs": -1, "max_steps": 12}),
        (5, "on_train_batch_end", {"limit_train_batches": 3, "limit_val_batches": 0}),
        (6, "on_train_epoch_end", {"limit_train_batches": 3}),
    ],
)
def test_resumed_run_sees_what_an_uninterrupted_one_does(folder, tmp_path, batches, hook, options):
    run_and_resume(folder, tmp_path, batches, hook, options)


@pytest.mark.slow
def test_workers_change_nothing_and_prefetched_batches_come_again(folder, tmp_path):
    seen = run_and_resume(
        folder, tmp_path, 6, "on_train_batch_end", {}, num_workers=2, reading=Reading(cache_bytes=10**7)
    )
    alone = Watcher()
    trainer(tmp_path).fit(alone, datamodule=datamodule(folder))
    assert alone.seen == seen


def test_each_epoch_has_its_own_order_crops_and_starts(folder, tmp_path):
    watcher = Watcher()
    trainer(tmp_path, max_epochs=2).fit(watcher, datamodule=datamodule(folder))
    first, second = ([s for s in watcher.seen if s[0] == epoch] for epoch in (0, 1))
    assert [s[2] for s in first] != [s[2] for s in second]
    other = Watcher()
    trainer(tmp_path, max_epochs=1).fit(other, datamodule=datamodule(folder, seed=1))
    assert [s[2] for s in other.seen] != [s[2] for s in first]


def test_resuming_with_another_batch_size_is_refused_with_advice_that_works(folder, tmp_path):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        save = SaveAfter(tmp_path / "mid.ckpt", 2, "on_train_batch_end")
        trainer(tmp_path, callbacks=[save]).fit(Watcher(), datamodule=datamodule(folder))
    with pytest.raises(ValueError, match="Set --data.batch_size to 3 divided by the number of devices"):
        trainer(tmp_path).fit(
            Watcher(), datamodule=datamodule(folder, batch_size=2), ckpt_path=tmp_path / "mid.ckpt"
        )
    as_before = datamodule(folder, batch_size=3)
    trainer(tmp_path).fit(Watcher(), datamodule=as_before, ckpt_path=tmp_path / "mid.ckpt")


def test_order_without_a_row_is_the_same_order(folder):
    identities = row_identities(read_manifest(folder / "train.csv"))
    assert len(set(identities.tolist())) == NUM_CLIPS
    order = epoch_order(identities, seed=3, epoch=5)
    assert sorted(order) == list(range(NUM_CLIPS))
    kept = np.delete(np.arange(NUM_CLIPS), 4)
    assert kept[epoch_order(identities[kept], seed=3, epoch=5)].tolist() == [i for i in order if i != 4]


def test_order_is_the_same_in_another_folder(folder, tmp_path):
    write_manifest(tmp_path, NUM_CLIPS, num_frames=2, height=16, width=16)
    here, there = (row_identities(read_manifest(f / "train.csv")) for f in (folder, tmp_path))
    assert here.tolist() == there.tolist()


def test_order_is_uniform():
    identities = np.random.default_rng(0).integers(0, 2**63, 20).astype(np.uint64)
    places = np.array([np.argsort(epoch_order(identities, 0, epoch)) for epoch in range(2000)])
    assert (abs(places.mean(0) - 9.5) < 0.7).all()


def test_broken_files_are_listed_and_limited(tmp_path, caplog):
    write_manifest(tmp_path, 9, num_frames=4, height=16, width=16)
    broken = write_broken(tmp_path / "train")
    options = dict(
        train=str(tmp_path / "train"),
        batch_size=2,
        sampler=ClipSampler(num_frames=2),
        transform=TrainTransform(size=8),
    )
    data = VideoDataModule(**options)
    trainer(tmp_path, max_epochs=2).fit(Watcher(), datamodule=data)
    assert set(data.ledger.reasons) == {str(b) for b in broken}
    assert sum("cannot read" in r.message for r in caplog.records) == 3
    assert "3 unreadable files" in data.ledger.summary() and "0 bytes" in data.ledger.summary()
    data.ledger.write(tmp_path / "failures.csv")
    assert len((tmp_path / "failures.csv").read_text().splitlines()) == 4
    none = Reading(max_failures=0)
    with pytest.raises(
        TooManyUnreadableClipsError,
        match="broken_.*0 are allowed: remove them .* raise --data.reading.max_failures",
    ):
        trainer(tmp_path, max_epochs=2).fit(Watcher(), datamodule=VideoDataModule(**options, reading=none))
    trainer(tmp_path, max_epochs=2).fit(
        Watcher(), datamodule=VideoDataModule(**options, reading=Reading(max_failures=3))
    )
    for file in broken:  # the other advice
        file.unlink()
    trainer(tmp_path, max_epochs=2).fit(Watcher(), datamodule=VideoDataModule(**options, reading=none))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_wholly_broken_set_stops_at_once(tmp_path, batch_size):
    write_broken(tmp_path / "videos")
    data = VideoDataModule(train=str(tmp_path / "videos"), batch_size=batch_size)
    with pytest.raises(TooManyUnreadableClipsError, match="no readable clip among the first 3"):
        trainer(tmp_path, max_epochs=1).fit(Watcher(), datamodule=data)


def test_missing_data_is_one_line_that_says_how_to_make_it(tmp_path):
    with pytest.raises(
        ManifestError, match=r"k400_train.csv: no such manifest.*data_manifests/README.md"
    ) as error:
        VideoDataModule(train=str(tmp_path / "k400_train.csv")).setup("fit")
    assert "\n" not in str(error.value)
    with pytest.raises(ManifestError, match="no train clips given.*data_manifests/README.md"):
        VideoDataModule().setup("fit")
    with pytest.raises(ValueError, match="at least 1"):
        VideoDataModule(batch_size=0)
    with pytest.raises(ValueError, match="all must be at least 0"):
        Reading(max_failures=-1)


def test_evaluation_clips_are_the_same_each_time(folder):
    data = datamodule(folder, seed=1)
    data.setup("fit")
    first, again = (list(data.eval_dataloader("train")) for _ in range(2))
    assert [i for b in first for i in b.index.tolist()] == list(range(NUM_CLIPS))
    assert all(torch.equal(a.video, b.video) for a, b in zip(first, again, strict=True))
    assert first[0].label.tolist() == [0, 1, 0] and data.train_manifest.label_names == ("left", "right")
    assert [len(b) for b in data.val_dataloader()] == [3, 1]
    without = VideoDataModule(train=str(folder / "train.csv"))
    without.setup("fit")
    with pytest.raises(ManifestError, match="no val clips given"):
        without.val_dataloader()


def test_root_is_where_paths_start(folder, tmp_path):
    manifest = tmp_path / "list.csv"
    manifest.write_text("train/clip_000.mp4 0\ntrain/clip_001.mp4 1\n")
    data = VideoDataModule(train=str(manifest), root=str(folder))
    data.setup("fit")
    assert len(data.clips("train")) == 2


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_cache_changes_nothing_and_is_filled(folder, num_workers):
    plain, kept = (
        datamodule(folder, reading=Reading(cache_bytes=n), num_workers=num_workers) for n in (0, 10**7)
    )
    plain.setup("fit")
    kept.setup("fit")
    loader, other = kept.train_dataloader(), plain.train_dataloader()
    for _ in range(2):
        for a, b in zip(other, loader, strict=True):
            assert torch.equal(a.video, b.video)
    assert len(kept.clips("train").cache) >= 12
    small = datamodule(folder, reading=Reading(cache_bytes=1000))
    small.setup("fit")
    assert small.clips("train").cache is None


def test_a_world_is_built_and_read(tmp_path):
    world = WorldConfig(root=str(tmp_path), num_train=2, num_val=1, num_frames=8, num_workers=1)
    sampler = ClipSampler(num_frames=8, fps=None)
    data = VideoDataModule(world=world, batch_size=2, sampler=sampler, transform=TrainTransform(size=8))
    data.prepare_data()
    data.setup("fit")
    assert (len(data.train_manifest), len(data.val_manifest)) == (2, 1)
    assert [len(batch) for batch in data.train_dataloader()] == [2]
    with pytest.raises(ValueError, match="Give one of the two"):
        VideoDataModule(world=world, train=str(tmp_path))


def test_validation_keeps_its_order_and_counts_what_is_broken(folder, tmp_path):
    manifest = write_manifest(tmp_path, 5, name="val.csv", num_frames=4, height=16, width=16)
    broken = write_broken(tmp_path / "val")
    with manifest.open("a") as file:
        file.writelines(f"val/{path.name},left\n" for path in broken)
    data = datamodule(folder, val=str(manifest))
    data.setup("fit")
    batches = list(data.val_dataloader())
    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2], [3, 4], []]
    trainer(tmp_path, max_epochs=1).validate(Watcher(), datamodule=data, verbose=False)
    assert set(data.ledger.reasons) == {str(path) for path in broken}


def test_every_rank_validates_as_many_batches():
    ranks = [list(EvalBatches(9, 2, rank, 4)) for rank in range(4)]
    assert ranks == [[[0, 4], [8]], [[1, 5], []], [[2, 6], []], [[3, 7], []]]
    assert all(len(EvalBatches(9, 2, rank, 4)) == 2 for rank in range(4))


def test_clips_of_one_video_share_a_batch_and_broken_ones_are_replaced(folder):
    data = datamodule(folder, batch_size=4, reading=Reading(clips_per_video=2))
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert all(len(batch) == 4 for batch in batches)
    assert all(batch.index[0::2].tolist() == batch.index[1::2].tolist() for batch in batches)
    with pytest.raises(ValueError, match="clips_per_video 3: give a multiple of it as batch size"):
        uneven = datamodule(folder, batch_size=4, reading=Reading(clips_per_video=3))
        uneven.setup("fit")
        uneven.train_dataloader()
    with pytest.raises(ValueError, match="clips_per_video 0: give at least 1"):
        Reading(clips_per_video=0)
