"""Batches of training and validation clips for Lightning, from a folder, a manifest or a generated world."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader

from vjepa.data.decoders.base import decoder_class
from vjepa.data.decoders.limited import opener
from vjepa.data.loading.batches import PartBatches, collate_group, rows_per_rank
from vjepa.data.loading.dataset import VideoClips, collate
from vjepa.data.loading.failures import FailureLedger
from vjepa.data.loading.frame_cache import FrameCache, cache_for
from vjepa.data.loading.loader import ResumableLoader, TrainingProgress
from vjepa.data.loading.mixture import MixtureClips, MixturePart, MixtureSchedule
from vjepa.data.loading.order import ClipOrder, EvalBatches, SampleKey, row_weights
from vjepa.data.loading.reading import Reading
from vjepa.data.loading.workers import LOOK_SECONDS
from vjepa.data.manifests.overlap import warn_of_overlap
from vjepa.data.manifests.quarantine import Quarantine
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import Manifest, ManifestError
from vjepa.data.remote import Fetch, fetch_video
from vjepa.data.sampling import ClipSampler, Position
from vjepa.data.shards.order import BlockReader, ShardOrder, ShardPlaces
from vjepa.data.transforms.video import ClipTransform, RandomTransform, TrainTransform
from vjepa.errors import SettingError
from vjepa.types import ClipBatch
from vjepa.worlds import WorldConfig

Split = Literal["train", "val"]


class VideoDataModule(L.LightningDataModule):
    """Clips of videos for pre-training, shuffled by seed, epoch and row, so that a run resumes within an epoch.

    Args:
        train: Manifest, folder of class folders, folder of videos, one video, or shards to train on.
        parts: Several data sets to train on, instead of `train`; each batch comes from one of them. The class
            names of the first are those of `val`.
        val: The same as `train`, for validation.
        root: Folder that relative paths in the manifests start from (default: each manifest's own folder).
        world: Generate these videos, instead of `train` and `val`.
        sampler: Chooses the frames of a clip; validation uses the centre of each video.
        transform: Crop, flip and normalisation; validation uses the largest central view.
        batch_size: Clips in a batch of one device.
        num_workers: Number of processes that decode; 0 decodes in the main process.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of your own
            `vjepa.data.Decoder`.
        reading: Time limit of decoding, memory for decoded videos, limit of unreadable files, and files to exclude.
        seed: Seed of the order, the clips, the crops and the flips.
    """

    def __init__(
        self,
        *,
        train: str | None = None,
        parts: list[MixturePart] | None = None,
        val: str | None = None,
        root: str | None = None,
        world: WorldConfig | None = None,
        sampler: ClipSampler | None = None,
        transform: TrainTransform | RandomTransform | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        decoder: str = "auto",
        reading: Reading | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if world is not None and (train or val or parts):
            raise SettingError("--data.world and --data.train, val or parts both given. Give one of the two.")
        if train and parts:
            raise SettingError("--data.train and --data.parts both given. Add the one to the others.")
        if batch_size < 1 or num_workers < 0:
            raise SettingError(
                f"batch_size {batch_size}, num_workers {num_workers}: at least 1 and 0 are needed."
            )
        self.parts = parts or ([MixturePart(source=train)] if train else [])
        for name in (decoder, *(part.decoder for part in self.parts)):
            decoder_class(name or decoder)  # an unknown name is refused here, not when the first clip is read
        self.sources = {"train": self.parts[0].source if self.parts else None, "val": val}
        self.root = root
        self.world = world
        self.sampler = sampler or ClipSampler()
        self.transform = transform or TrainTransform()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.decoder = decoder
        self.reading = reading or Reading()
        self.seed = seed
        self.quarantine = None if self.reading.quarantine is None else Quarantine(self.reading.quarantine)
        self.ledger = FailureLedger(max_failures=self.reading.max_failures)
        self.train_manifest: Manifest | None = None
        self.val_manifest: Manifest | None = None
        self._other_manifests: list[Manifest] = []  # of the parts after the first
        self._caches: dict[str, FrameCache | None] = {}
        self._train_loader: ResumableLoader | None = None
        self._position: dict[str, Any] = {}  # of a checkpoint, for the next training loader

    def prepare_data(self) -> None:
        """Generate the world, if there is one."""
        if self.world is not None:
            self.world.build()

    def setup(self, stage: str | None = None) -> None:
        """Read the manifests; raise `ManifestError` if one is missing or wrong."""
        if self.world is not None:
            folder = self.world.build()
            self.sources = {"train": str(folder / "train.csv"), "val": str(folder / "val.csv")}
            self.parts = [MixturePart(source=str(folder / "train.csv"))]
        if self.train_manifest is None and self.parts:
            self.train_manifest, *self._other_manifests = (
                self._usable(read_manifest(part.source, root=part.root or self.root)) for part in self.parts
            )
        if stage == "fit":
            self.manifest("train")
        if self.val_manifest is None and self.sources["val"]:
            names = self.train_manifest.label_names if self.train_manifest else ()
            self.val_manifest = self._usable(
                read_manifest(self.sources["val"], root=self.root, label_names=names)
            )
            if self.train_manifest is not None:
                warn_of_overlap((self.train_manifest, *self._other_manifests), self.val_manifest)
        if self.quarantine is not None:
            self.quarantine.warn_of_unknown()
        if self.val_manifest is None and stage == "fit" and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # else Lightning warns about an empty list of loaders

    @property
    def mean_batch(self) -> float:
        """Clips in a batch of one device, on average over the parts of a mixture."""
        each, (_, world_size) = self.reading.clips_per_video, self._ranks()
        rows = (rows_per_rank(len(self._part_manifest(i)), world_size) for i in range(len(self.parts)))
        clips = [
            (part.weight, min(part.batch_size or self.batch_size, most * each))
            for part, most in zip(self.parts, rows, strict=True)
        ]
        return sum(weight * size for weight, size in clips) / sum(weight for weight, _ in clips)

    def _usable(self, manifest: Manifest) -> Manifest:
        return manifest if self.quarantine is None else self.quarantine.without(manifest)

    def manifest(self, split: Split) -> Manifest:
        """Return the manifest of a split; raise `ManifestError` if none was given."""
        manifest = self.train_manifest if split == "train" else self.val_manifest
        if manifest is None:
            reason = (
                f"no {split} clips given. Give a manifest or a folder of videos (data_manifests/README.md shows how to "
                "make one), or generate a world with --data.world"
            )
            raise ManifestError(f"--data.{split}", 0, reason)
        return manifest

    def paths_of(self, batch: ClipBatch) -> list[str]:
        """Return the files of a training batch."""
        manifest = self._part_manifest(batch.part)
        return [manifest.rows[row].path for row in batch.index.tolist()]

    def clips(
        self,
        split: Split,
        *,
        transform: ClipTransform | None = None,
        position: Position = "centre",
    ) -> VideoClips:
        """Return the clips of a split, by row number; by default with the largest central view, without randomness."""
        manifest = self.manifest(split)
        decoder = (self.parts[0].decoder if split == "train" else None) or self.decoder
        return VideoClips(
            manifest,
            sampler=self.sampler.at(position),
            transform=transform or self.transform.centred(),
            **self._shared_options("train 0" if split == "train" else split, manifest, decoder),
        )

    def train_dataloader(self) -> ResumableLoader:
        """Return shuffled training clips in full batches; the loader resumes within an epoch."""
        self.manifest("train")  # or an error that says what to give
        clips, batches = zip(*(self._part(i) for i in range(len(self.parts))), strict=True)

        def make(keys: Iterable[list[SampleKey]]) -> DataLoader[Any]:
            timeout = LOOK_SECONDS if self.num_workers else 0
            options = self._loading() | {"collate_fn": collate_group, "timeout": timeout}
            return DataLoader(MixtureClips(clips), batch_sampler=keys, **options)

        self._train_loader = ResumableLoader(
            parts=batches,
            schedule=MixtureSchedule([part.weight for part in self.parts], seed=self.seed),
            make=make,
            progress=self._progress,
            batches_per_step=self.trainer.accumulate_grad_batches if self.trainer else 1,
        )
        if self._position:
            self._train_loader.go_to(self._position)
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Return validation clips, the same each time."""
        return self.eval_dataloader("val")

    def eval_dataloader(self, split: Split) -> DataLoader[Any]:
        """Return this rank's share of a split's clips in the manifest's order, the same each time."""
        clips = self.clips(split)
        batches = EvalBatches(len(clips), self.batch_size, *self._ranks())
        return DataLoader(clips, batch_sampler=batches, **self._loading())

    def on_before_batch_transfer(self, batch: ClipBatch, dataloader_idx: int) -> ClipBatch:
        """Count unreadable clips of validation; called by Lightning for each batch, in the main process."""
        if batch.turn is None:
            self.ledger.observe(len(batch), batch.failures, num_padded=batch.num_padded)
        return batch

    def on_after_batch_transfer(self, batch: ClipBatch, dataloader_idx: int) -> ClipBatch:
        """Normalise pixels on the device; called by Lightning for each batch."""
        return batch.normalised()

    def state_dict(self) -> dict[str, Any]:
        """Return the position of training; Lightning saves it with every checkpoint, on all ranks together."""
        return self._train_loader.position() if self._train_loader else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume training at this position."""
        self._position = state_dict

    def teardown(self, stage: str) -> None:
        """End the worker processes."""
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

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _part_manifest(self, number: int) -> Manifest:
        return (self.manifest("train"), *self._other_manifests)[number]

    def _shared_options(self, name: str, manifest: Manifest, decoder: str) -> dict[str, Any]:
        """Return the options that training and validation clips have in common."""
        return {
            "decoder": decoder,
            "timeout_seconds": self.reading.timeout_seconds,
            "index": self.reading.index,
            "extras": self.reading.extras,
            "seed": self.seed,
            "cache": self._cache(name, manifest, decoder),
        }

    def _part(self, number: int) -> tuple[VideoClips, PartBatches]:
        """Return the training clips of one part, and their batches."""
        part, manifest, each = self.parts[number], self._part_manifest(number), self.reading.clips_per_video
        rank, world_size = self._ranks()
        batch_size, rest = divmod(part.batch_size or self.batch_size, each)
        if rest:
            raise SettingError(
                f"batches of {part.batch_size or self.batch_size} clips with clips_per_video {each}: give a multiple "
                "of it as batch size."
            )
        fetch: Fetch = fetch_video
        arranged: ShardOrder | None = None
        if part.stream_bytes:
            places = ShardPlaces(manifest)
            fetch = BlockReader(places, buffer_bytes=part.stream_bytes)
            arranged = ShardOrder(
                places,
                seed=self.seed,
                batch_size=batch_size,
                num_workers=self.num_workers,
                world_size=world_size,
                buffer_bytes=part.stream_bytes,
            )
        clips = VideoClips(
            manifest,
            sampler=part.sampler or self.sampler,
            transform=part.transform or self.transform,
            fetch=fetch,
            clips_per_video=each,
            as_pixels=True,
            **self._shared_options(f"train {number}", manifest, part.decoder or self.decoder),
        )
        order = ClipOrder(
            identities=clips.identities,
            weights=row_weights(manifest),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            part=number,
            arranged=arranged,
        )
        return clips, PartBatches(order=order, batch_size=batch_size, ledger=self.ledger, clips_per_row=each)

    def _progress(self) -> TrainingProgress:
        if self.trainer is None:
            return TrainingProgress(epoch=0, batch=0)
        # `processed`: a batch that was fetched but not trained on must be read again
        trained = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        return TrainingProgress(epoch=self.trainer.current_epoch, batch=trained)

    def _cache(self, name: str, manifest: Manifest, decoder: str) -> FrameCache | None:
        if self.reading.cache_bytes and name not in self._caches:
            used = sum(cache.num_bytes for cache in self._caches.values() if cache is not None)
            self._caches[name] = cache_for(
                [row.path for row in manifest.rows],
                decoder=opener(decoder, self.reading.timeout_seconds, index=self.reading.index),
                limit_bytes=self.reading.cache_bytes - used,
                shared=self.num_workers > 0,
            )
        return self._caches.get(name)
