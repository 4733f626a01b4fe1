"""The verb `vjepa extract`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from lightning.fabric.plugins.environments import TorchElasticEnvironment

from vjepa.checkpoints import load_encoder
from vjepa.commands.flags import Flat
from vjepa.commands.report import Report
from vjepa.data import read_manifest
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.encode import DType, Precision
from vjepa.features.errors import FeaturesError
from vjepa.features.extract import ClipSource
from vjepa.features.folder import Extraction, describe_encoder, extract_to
from vjepa.features.pooling import FeatureMaker, Pool, load_pooler
from vjepa.features.reader import INDEX, file_of
from vjepa.features.search import check_searchable, write_search
from vjepa.features.store import Ranks
from vjepa.features.windows import Short, Tail, windows_of
from vjepa.features.writers import Format, check_format
from vjepa.models import VideoEncoder


@dataclass(frozen=True)
class ClipFlags:
    """How videos are cut.

    Args:
        num_frames: Frames of a clip (default: those of the run that trained the encoder, else its native ones).
        fps: Frames of a clip per second of video (default: those of the run, else all; of a window, num_frames).
        window: Seconds of a window; without it, one clip from the middle of each video.
        stride: Seconds from one window to the next (default: window).
        tail: A remainder shorter than a window is left unused (drop), or a last window ends with the video (align,
            the default of vjepa classify).
        short: A video shorter than a window is an error (refuse), or one window (repeat, as in vjepa classify).
    """

    num_frames: int | None = None
    fps: float | None = None
    window: float | None = None
    stride: float | None = None
    tail: Tail = "drop"
    short: Short = "refuse"

    def spec(self, encoder: VideoEncoder, layers: tuple[int, ...]) -> ClipSpec:
        """Return how the clips of this encoder are cut.

        Raises:
            FeaturesError: If the flags contradict each other.
        """
        windows = windows_of(self.window, self.stride, tail=self.tail, short=self.short)
        return ClipSpec.for_encoder(
            encoder, num_frames=self.num_frames, fps=self.fps, windows=windows, layers=layers
        )


@dataclass(frozen=True)
class FeatureFlags:
    """What is kept of a clip, and in which files.

    Args:
        pool: mean over a clip's tokens, over each tubelet's (frame), a trained probe's (attentive), none: all tokens.
        layers: Blocks whose tokens are taken, such as -4,-1; of several, features get an axis for them in front.
        probe: Folder of a trained attentive probe, for pool attentive.
        dtype: What features are kept in.
        format: The file that features go to.
        index: Also write what vjepa search needs.
    """

    pool: Pool = "mean"
    layers: str = "-1"
    probe: Path | None = None
    dtype: DType = "fp32"
    format: Format = "safetensors"
    index: bool = False

    def blocks(self) -> tuple[int, ...]:
        """Return the layers as numbers.

        Raises:
            FeaturesError: If they are not numbers.
        """
        try:
            return tuple(int(word) for word in self.layers.split(","))
        except ValueError as error:
            raise FeaturesError(
                f"layers {self.layers!r}: give numbers with commas between, such as -1 or 5,11."
            ) from error


@dataclass(frozen=True)
class WorkFlags:
    """How the work is done.

    Args:
        batch_size: Clips of one forward.
        num_workers: Processes that decode; 0 decodes in the main one.
        precision: bf16 runs the encoder in autocast.
        decoder: auto, pyav, torchcodec, decord, frames, or the class path of a decoder of your own.
        rank: Which of world_size processes this is (default: what torchrun says, else 0).
        world_size: How many processes share the work, at once or one after the other (default: as rank, else 1).
    """

    batch_size: int = 16
    num_workers: int = 0
    precision: Precision = "fp32"
    decoder: str = "auto"
    rank: int | None = None
    world_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_workers < 0:
            raise FeaturesError(
                f"got batch_size {self.batch_size}, num_workers {self.num_workers}: give 1 and 0, or more."
            )

    def ranks(self) -> Ranks:
        """Return this process among all of them, as given or as torchrun says.

        Raises:
            FeaturesError: If there is no such process.
        """
        rank, world_size = self.rank, self.world_size
        if (rank is None) != (world_size is None):
            raise FeaturesError(f"got rank {rank}, world_size {world_size}: give both or neither.")
        if rank is None or world_size is None:
            torchrun = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else None
            return Ranks(torchrun.global_rank(), torchrun.world_size()) if torchrun else Ranks()
        return Ranks(rank, world_size)


ANY_CLIPS, ANY_FEATURES, ANY_WORK = ClipFlags(), FeatureFlags(), WorkFlags()


def extract(
    *,
    encoder: str,
    data: str,
    out: Path,
    clips: Flat[ClipFlags] = ANY_CLIPS,
    features: Flat[FeatureFlags] = ANY_FEATURES,
    work: Flat[WorkFlags] = ANY_WORK,
    which: Literal["target", "context"] = "target",
    label: str = "label",
    overwrite: bool = False,
    thorough: bool = False,
) -> Report:
    """Write frozen features of videos: of the clip in the middle of each, or of windows from start to end.

    The same command continues work that was stopped at any moment, and the files are the same. A video that cannot
    be read, or not to its end, is one line, and is listed in features.json; the exit code is then 2, and 0 if all
    was read.

    Args:
        encoder: Folder written by vjepa fit or save_pretrained, or a .ckpt file.
        data: A manifest, a folder of videos, one video, or shards.
        out: Folder for features.safetensors (or .npy, .parquet), index.csv, features.json and result.json.
        clips: How videos are cut.
        features: What is kept of a clip.
        work: How the work is done.
        which: Which encoder of a run: its moving average (target), or the one that was trained (context).
        label: Column of the manifest that holds the label.
        overwrite: Delete features in out that were made otherwise.
        thorough: Recognise replaced videos by their content, which is read, beside size and time of change.
    """
    began, ranks = time.monotonic(), work.ranks()
    check_format(features.format, features.dtype)
    network = load_encoder(encoder, which=which).to(_device())
    spec = clips.spec(network, features.blocks())
    maker = FeatureMaker(
        network,
        layers=features.blocks(),
        pool=features.pool,
        pooler=load_pooler(features.probe, network) if features.probe is not None else None,
        precision=work.precision,
        dtype=features.dtype,
    )
    if features.index:
        check_searchable(maker)
    probe = str(features.probe.resolve()) if features.probe else None
    made = extract_to(
        out,
        ClipSource(read_manifest(data, label_column=label), spec, work.decoder, work.num_workers, thorough),
        maker,
        format=features.format,
        batch_size=work.batch_size,
        ranks=ranks,
        more={"probe": probe, "encoder": describe_encoder(network, encoder, which)},
        overwrite=overwrite,
    )
    if features.index and made.about is not None:
        write_search(out)
    return _report(made, out, time.monotonic() - began)


def _report(made: Extraction, out: Path, seconds: float) -> Report:
    about = made.about
    closing: tuple[str, ...] = ()
    figures: dict[str, object] = {"is_complete": about is not None, "num_made": made.num_made}
    if about is not None:
        figures |= {
            "num_clips": about["shape"][0],
            "num_failures": len(about["failures"]),
            "num_padded": about.get("num_padded", 0),
            "failures": [f"{failure['path']}: {failure['reason']}" for failure in about["failures"]],
            "shape": about["shape"],
        }
        features, what = out / file_of(about["format"]), " x ".join(map(str, about["shape"]))
        closing = (f"features: {features} ({what}), of the clips in {out / INDEX}",)
    figures |= {"seconds": round(seconds, 2), "clips_per_second": round(made.num_made / seconds, 2)}
    code = 2 if about and about["failures"] else 0
    return Report(title="features", figures=figures, exit_code=code, closing=closing)


def _device() -> torch.device:
    """Return the accelerator if there is one; of several, the one that torchrun assigns to this process."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator()
    assert found is not None
    local = TorchElasticEnvironment().local_rank() if TorchElasticEnvironment.detect() else 0
    return torch.device(found.type, local % torch.accelerator.device_count())
