"""Training and validation clips for Lightning: a folder, a manifest or a generated world in, batches out."""

from __future__ import annotations

import logging
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader

from vjepa.data.cache import FrameCache, cache_for
from vjepa.data.dataset import VideoClips, collate
from vjepa.data.decoders.base import decoder_class
from vjepa.data.decoders.limited import opener
from vjepa.data.failures import FIRST_BATCHES, FailureLedger
from vjepa.data.loader import Progress, ResumableLoader
from vjepa.data.manifest import Manifest, ManifestError, read_manifest
from vjepa.data.order import EpochBatches
from vjepa.data.reading import Reading
from vjepa.data.sampling import ClipSampler
from vjepa.data.transforms import ClipTransform, TrainTransform
from vjepa.types import ClipBatch
from vjepa.worlds import WorldConfig

log = logging.getLogger(__name__)

Split = Literal["train", "val"]


class VideoDataModule(L.LightningDataModule):
    """Clips of videos for pre-training, shuffled by seed, epoch and row, so that a run resumes in mid-epoch.

    Args:
        train: manifest, folder of class folders, folder of videos, or one video to train on.
        val: the same for validation.
        root: folder that relative paths in the manifests start from (default: each manifest's own).
        world: generate these videos, instead of `train` and `val`.
        sampler: which frames make a clip; validation takes the centre of each video.
        transform: crop, flip and normalisation; validation takes the largest central view.
        batch_size: clips in a batch of one device.
        num_workers: processes that decode; 0 decodes in the main process.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a `vjepa.data.Decoder`
            of your own.
        reading: how long a clip may take to decode, and memory to keep decoded videos in.
        max_failures: files that may be unreadable before the run stops with their list.
        seed: of the order, the clips, the crops and the flips.
    """

    def __init__(
        self,
        *,
        train: str | None = None,
        val: str | None = None,
        root: str | None = None,
        world: WorldConfig | None = None,
        sampler: ClipSampler | None = None,
        transform: TrainTransform | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        decoder: str = "auto",
        reading: Reading | None = None,
        max_failures: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if world is not None and (train or val):
            raise ValueError("--data.world and --data.train or --data.val both given. Give one of the two.")
        if batch_size < 1 or num_workers < 0 or max_failures < 0:
            raise ValueError(
                f"batch_size {batch_size}, num_workers {num_workers}, max_failures {max_failures}: "
                "the first must be at least 1, the others at least 0."
            )
        decoder_class(decoder)  # an unknown name is refused here, not when the first clip is due
        self.sources: dict[str, str | None] = {"train": train, "val": val}
        self.root = root
        self.world = world
        self.sampler = sampler or ClipSampler()
        self.transform = transform or TrainTransform()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.decoder = decoder
        self.reading = reading or Reading()
        self.seed = seed
        self.ledger = FailureLedger(max_failures=max_failures)
        self.train_manifest: Manifest | None = None
        self.val_manifest: Manifest | None = None
        self._caches: dict[str, FrameCache | None] = {}
        self._train_loader: ResumableLoader | None = None

    def prepare_data(self) -> None:
        """Generate the world, if there is one."""
        if self.world is not None:
            self.world.build()

    def setup(self, stage: str | None = None) -> None:
        """Read the manifests; raises `ManifestError` where one is missing or wrong."""
        if self.world is not None:
            folder = self.world.build()
            self.sources = {"train": str(folder / "train.csv"), "val": str(folder / "val.csv")}
        if self.train_manifest is None and self.sources["train"]:
            self.train_manifest = read_manifest(self.sources["train"], root=self.root)
        if self.train_manifest is None and stage == "fit":
            raise ManifestError(
                "--data.train",
                0,
                "no training data given. Give a manifest or a folder of videos (data_manifests/README.md "
                "shows how to make one), or generate a world with --data.world",
            )
        if self.val_manifest is None and self.sources["val"]:
            names = self.train_manifest.label_names if self.train_manifest else ()
            self.val_manifest = read_manifest(self.sources["val"], root=self.root, label_names=names)
        if self.val_manifest is None and stage == "fit" and self.trainer is not None:
            self.trainer.limit_val_batches = (
                0  # Lightning warns of, and sanity-checks, an empty list of loaders
            )

    def manifest(self, split: Split) -> Manifest:
        """The manifest of a split; raises `ManifestError` where none was given."""
        manifest = self.train_manifest if split == "train" else self.val_manifest
        if manifest is None:
            raise ManifestError(
                f"--data.{split}", 0, f"no {split} clips given. Give a manifest or a folder of videos"
            )
        return manifest

    def clips(
        self,
        split: Split,
        *,
        transform: ClipTransform | None = None,
        position: Literal["random", "centre", "start"] = "centre",
    ) -> VideoClips:
        """The clips of a split, by row number.

        Args:
            split: "train" or "val".
            transform: from frames to network input (default: the largest central view, no chance).
            position: where in its video a clip lies.
        """
        return VideoClips(
            self.manifest(split),
            sampler=self.sampler.at(position),
            transform=transform or self.transform.centred(),
            decoder=self.decoder,
            timeout_seconds=self.reading.timeout_seconds,
            seed=self.seed,
            cache=self._cache(split),
        )

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled training clips; takes up in mid-epoch."""
        clips = self.clips("train", transform=self.transform, position=self.sampler.position)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = EpochBatches(
            identities=clips.identities,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        self.ledger.first_batches = min(FIRST_BATCHES, len(batches))
        self._train_loader = ResumableLoader(
            batches=batches,
            make=lambda: DataLoader(clips, batch_sampler=batches, **self._loading()),
            progress=self._progress,
        )
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation clips, the same each time."""
        return self.eval_dataloader("val")

    def eval_dataloader(self, split: Split) -> DataLoader[Any]:
        """All clips of a split in the manifest's order, the same each time; this rank's share of them."""
        clips = self.clips(split)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        mine = range(rank, len(clips), world_size)
        return DataLoader(clips, batch_size=self.batch_size, sampler=mine, **self._loading())

    def on_before_batch_transfer(self, batch: ClipBatch, dataloader_idx: int) -> ClipBatch:
        """Count unreadable clips; called by Lightning for each batch, in the main process."""
        self.ledger.observe(batch)
        return batch

    def teardown(self, stage: str) -> None:
        """Let the worker processes end."""
        if self._train_loader is not None:
            self._train_loader.close()

    def _loading(self) -> dict[str, Any]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {
            "num_workers": self.num_workers,
            "collate_fn": collate,
            "pin_memory": on_gpu,
            "persistent_workers": self.num_workers > 0,
        }

    def _progress(self) -> Progress:
        if self.trainer is None:
            return Progress(epoch=0, batch=0)
        # `processed`: a batch that was fetched but not trained on is to come again
        trained = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        return Progress(epoch=self.trainer.current_epoch, batch=trained)

    def _cache(self, split: Split) -> FrameCache | None:
        if not self.reading.cache_bytes:
            return None
        if split not in self._caches:
            taken = sum(cache.num_bytes for cache in self._caches.values() if cache is not None)
            self._caches[split] = cache_for(
                [row.path for row in self.manifest(split).rows],
                decoder=opener(self.decoder, self.reading.timeout_seconds),
                limit_bytes=self.reading.cache_bytes - taken,
                shared=self.num_workers > 0,
            )
        return self._caches[split]
