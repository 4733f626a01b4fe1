"""Training and validation clips for Lightning: a folder, a manifest or a generated world in, batches out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader, Sampler

from vjepa.data.decoders.base import decoder_class
from vjepa.data.decoders.limited import opener
from vjepa.data.loading.batches import PartBatches, collate_group
from vjepa.data.loading.dataset import VideoClips, collate
from vjepa.data.loading.failures import FailureLedger
from vjepa.data.loading.frame_cache import FrameCache, cache_for
from vjepa.data.loading.loader import Progress, ResumableLoader
from vjepa.data.loading.mixture import MixtureClips, MixturePart, Turns
from vjepa.data.loading.order import ClipOrder, SampleKey, row_weights
from vjepa.data.loading.reading import Reading
from vjepa.data.manifests.quarantine import Quarantine
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import Manifest, ManifestError
from vjepa.data.remote import fetch_video
from vjepa.data.sampling import ClipSampler
from vjepa.data.shards.order import BlockReader, ShardOrder, ShardPlaces
from vjepa.data.transforms.video import ClipTransform, TrainingTransform, TrainTransform
from vjepa.errors import SettingError
from vjepa.types import ClipBatch
from vjepa.worlds import WorldConfig

log = logging.getLogger(__name__)

Split = Literal["train", "val"]


class VideoDataModule(L.LightningDataModule):
    """Clips of videos for pre-training, shuffled by seed, epoch and row, so that a run resumes in mid-epoch.

    Args:
        train: manifest, folder of class folders, folder of videos, one video, or shards to train on.
        parts: several data sets to train on, of which each batch takes one, instead of `train`. The first
            stands for all of them where labels are asked for.
        val: the same for validation.
        root: folder that relative paths in the manifests start from (default: each manifest's own).
        world: generate these videos, instead of `train` and `val`.
        sampler: which frames make a clip; validation takes the centre of each video.
        transform: crop, flip and normalisation; validation takes the largest central view.
        batch_size: clips in a batch of one device.
        num_workers: processes that decode; 0 decodes in the main process.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a `vjepa.data.Decoder`
            of your own.
        reading: how long a clip may take to decode, memory to keep decoded videos in, how many files may be
            unreadable, and which are left out.
        seed: of the order, the clips, the crops and the flips.
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
        transform: TrainTransform | TrainingTransform | None = None,
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
            raise SettingError("--data.train and --data.parts both given. Put the one among the others.")
        if batch_size < 1 or num_workers < 0:
            raise SettingError(
                f"batch_size {batch_size}, num_workers {num_workers}: at least 1 and 0 are needed."
            )
        self.parts = parts or ([MixturePart(source=train)] if train else [])
        for name in (decoder, *(part.decoder for part in self.parts)):
            decoder_class(name or decoder)  # an unknown name is refused here, not when the first clip is due
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
        self._shard_places: dict[int, ShardPlaces] = {}
        self._caches: dict[str, FrameCache | None] = {}
        self._train_loader: ResumableLoader | None = None
        self._position: dict[str, Any] = {}  # in a checkpoint, for the loader that is to come

    def prepare_data(self) -> None:
        """Generate the world, if there is one."""
        if self.world is not None:
            self.world.build()

    def setup(self, stage: str | None = None) -> None:
        """Read the manifests; raises `ManifestError` where one is missing or wrong."""
        if self.world is not None:
            folder = self.world.build()
            self.sources = {"train": str(folder / "train.csv"), "val": str(folder / "val.csv")}
            self.parts = [MixturePart(source=str(folder / "train.csv"))]
        if self.train_manifest is None and self.parts:
            self.train_manifest, *self._other_manifests = (
                self._usable(read_manifest(part.source, root=part.root or self.root)) for part in self.parts
            )
        if self.train_manifest is None and stage == "fit":
            raise ManifestError(
                "--data.train",
                0,
                "no training data given. Give a manifest or a folder of videos (data_manifests/README.md "
                "shows how to make one), or generate a world with --data.world",
            )
        if self.val_manifest is None and self.sources["val"]:
            names = self.train_manifest.label_names if self.train_manifest else ()
            self.val_manifest = self._usable(
                read_manifest(self.sources["val"], root=self.root, label_names=names)
            )
        if self.quarantine is not None:
            self.quarantine.warn_of_unknown()
        if self.val_manifest is None and stage == "fit" and self.trainer is not None:
            self.trainer.limit_val_batches = (
                0  # Lightning warns of, and sanity-checks, an empty list of loaders
            )

    @property
    def mean_batch(self) -> float:
        """Clips in a batch of one device, on average over the parts of a mixture."""
        clips = [(part.weight, part.batch_size or self.batch_size) for part in self.parts]
        return sum(weight * size for weight, size in clips) / sum(weight for weight, _ in clips)

    def _usable(self, manifest: Manifest) -> Manifest:
        return manifest if self.quarantine is None else self.quarantine.without(manifest)

    def manifest(self, split: Split) -> Manifest:
        """The manifest of a split; raises `ManifestError` where none was given."""
        manifest = self.train_manifest if split == "train" else self.val_manifest
        if manifest is None:
            raise ManifestError(
                f"--data.{split}", 0, f"no {split} clips given. Give a manifest or a folder of videos"
            )
        return manifest

    def paths_of(self, batch: ClipBatch) -> list[str]:
        """The files of a training batch."""
        manifest = (self.manifest("train"), *self._other_manifests)[batch.part]
        return [manifest.rows[row].path for row in batch.index.tolist()]

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
        manifest = self.manifest(split)
        decoder = (self.parts[0].decoder if split == "train" else None) or self.decoder
        return VideoClips(
            manifest,
            sampler=self.sampler.at(position),
            transform=transform or self.transform.centred(),
            decoder=decoder,
            timeout_seconds=self.reading.timeout_seconds,
            index=self.reading.index,
            seed=self.seed,
            cache=self._cache("train 0" if split == "train" else split, manifest, decoder),
            extras=self.reading.extras,
        )

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled training clips in full batches; takes up in mid-epoch."""
        rank, world_size = self._ranks()
        self.manifest("train")  # or an error that says what to give
        clips = [self._part_clips(i) for i in range(len(self.parts))]
        batches = [
            PartBatches(
                order=ClipOrder(
                    identities=clips[i].identities,
                    weights=row_weights(clips[i].manifest),
                    seed=self.seed,
                    rank=rank,
                    world_size=world_size,
                    part=i,
                    arranged=self._arranged(i),
                ),
                batch_size=self._rows_of_a_batch(part),
                ledger=self.ledger,
                clips_per_row=self.reading.clips_per_video,
            )
            for i, part in enumerate(self.parts)
        ]

        def make(keys: Iterable[list[SampleKey]]) -> DataLoader[Any]:
            options = self._loading() | {"collate_fn": collate_group}
            return DataLoader(MixtureClips(clips), batch_sampler=keys, **options)

        self._train_loader = ResumableLoader(
            parts=batches,
            turns=Turns([part.weight for part in self.parts], seed=self.seed),
            make=make,
            progress=self._progress,
        )
        if self._position:
            self._train_loader.go_to(self._position)
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation clips, the same each time."""
        return self.eval_dataloader("val")

    def eval_dataloader(self, split: Split) -> DataLoader[Any]:
        """All clips of a split in the manifest's order, the same each time; this rank's share of them."""
        clips = self.clips(split)
        batches = EvalBatches(len(clips), self.batch_size, *self._ranks())
        return DataLoader(clips, batch_sampler=batches, **self._loading())

    def on_before_batch_transfer(self, batch: ClipBatch, dataloader_idx: int) -> ClipBatch:
        """Count unreadable clips of validation; called by Lightning for each batch, in the main process."""
        if batch.turn is None:
            self.ledger.observe(len(batch), batch.failures)
        return batch

    def on_after_batch_transfer(self, batch: ClipBatch, dataloader_idx: int) -> ClipBatch:
        """Normalise pixels where the network is; called by Lightning for each batch."""
        return batch.normalised()

    def state_dict(self) -> dict[str, Any]:
        """Where training is; saved by Lightning with every checkpoint, on all ranks together."""
        return self._train_loader.position() if self._train_loader else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up training there."""
        self._position = state_dict

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

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _part_clips(self, number: int) -> VideoClips:
        """The training clips of one part."""
        part, manifest = self.parts[number], (self.manifest("train"), *self._other_manifests)[number]
        decoder, places = part.decoder or self.decoder, self._places(number)
        return VideoClips(
            manifest,
            sampler=part.sampler or self.sampler,
            transform=part.transform or self.transform,
            decoder=decoder,
            timeout_seconds=self.reading.timeout_seconds,
            index=self.reading.index,
            seed=self.seed,
            cache=self._cache(f"train {number}", manifest, decoder),
            fetch=fetch_video if places is None else BlockReader(places, buffer_bytes=part.stream_bytes),
            clips_per_video=self.reading.clips_per_video,
            as_pixels=True,
            extras=self.reading.extras,
        )

    def _rows_of_a_batch(self, part: MixturePart) -> int:
        """How many videos have their clips in a batch."""
        clips, each = part.batch_size or self.batch_size, self.reading.clips_per_video
        if clips % each:
            raise SettingError(
                f"batches of {clips} clips with clips_per_video {each}: give a batch size that it divides."
            )
        return clips // each

    def _places(self, number: int) -> ShardPlaces | None:
        """Where the clips of a part lie in shards, if those are read as streams."""
        if not self.parts[number].stream_bytes:
            return None
        if number not in self._shard_places:
            manifest = (self.manifest("train"), *self._other_manifests)[number]
            self._shard_places[number] = ShardPlaces(manifest)
        return self._shard_places[number]

    def _arranged(self, number: int) -> ShardOrder | None:
        """The order of a part whose shards are read as streams."""
        part, places = self.parts[number], self._places(number)
        if places is None:
            return None
        return ShardOrder(
            places,
            seed=self.seed,
            batch_size=self._rows_of_a_batch(part),
            num_workers=self.num_workers,
            world_size=self._ranks()[1],
            buffer_bytes=part.stream_bytes,
        )

    def _progress(self) -> Progress:
        if self.trainer is None:
            return Progress(epoch=0, batch=0)
        # `processed`: a batch that was fetched but not trained on is to come again
        trained = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        return Progress(epoch=self.trainer.current_epoch, batch=trained)

    def _cache(self, name: str, manifest: Manifest, decoder: str) -> FrameCache | None:
        if not self.reading.cache_bytes:
            return None
        if name not in self._caches:
            taken = sum(cache.num_bytes for cache in self._caches.values() if cache is not None)
            self._caches[name] = cache_for(
                [row.path for row in manifest.rows],
                decoder=opener(decoder, self.reading.timeout_seconds, index=self.reading.index),
                limit_bytes=self.reading.cache_bytes - taken,
                shared=self.num_workers > 0,
            )
        return self._caches[name]


class EvalBatches(Sampler[list[int]]):
    """Row numbers of this rank's batches in the manifest's order; every rank has as many batches.

    A rank without a clip for its last batch has an empty one: it must take part in what ranks do together.

    Args:
        num_clips: rows of the manifest.
        batch_size: clips in a batch.
        rank: which rank this is.
        world_size: how many ranks there are; each takes every world_size-th row.
    """

    def __init__(self, num_clips: int, batch_size: int, rank: int, world_size: int) -> None:
        self._mine = range(rank, num_clips, world_size)
        self._batch_size = batch_size
        self._longest = -(-num_clips // world_size)

    def __len__(self) -> int:
        return -(-self._longest // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self._longest, self._batch_size):
            yield list(self._mine[start : start + self._batch_size])
