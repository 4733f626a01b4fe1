"""The clips that a probe is trained and tested on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch.utils.data import Dataset

from vjepa.data.loading.dataset import Sample, VideoClips
from vjepa.data.loading.order import SampleKey
from vjepa.data.manifests.rows import Manifest
from vjepa.data.sampling import ClipSampler, FrameSampler
from vjepa.data.transforms.augment import ProbeTrainTransform
from vjepa.data.transforms.views import SegmentSampler, view_transform
from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError
from vjepa.probes.views import ONE_CLIP, ClipLayout


def eval_clips(
    manifest: Manifest,
    encoder: VideoEncoder,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    frame_step: int | None = None,
    decoder: str = "auto",
    layout: ClipLayout = ONE_CLIP,
) -> VideoClips:
    """The clips of a manifest without chance: from the middle of each video, its largest central view.

    Args:
        manifest: Which videos.
        encoder: Whose native height, width and length the clips get.
        num_frames: Frames of a clip (default: the encoder's).
        fps: Frames of the clip a second of video; None takes every frame.
        frame_step: Every so many-th frame instead of a rate.
        decoder: Backend that reads the videos.
        layout: Segments, each from the middle of an equal part of the video, and views, squares along the longer
            side. They follow each other in one long clip, which `layout.tokens` takes apart.
    """
    return VideoClips(
        manifest,
        sampler=_sampler(encoder, num_frames, (fps, frame_step), "centre", layout.segments),
        transform=view_transform(encoder.config["img_size"], layout.views),
        decoder=decoder,
    )


class AugmentedClips(Dataset[Sample]):
    """One clip of every video as in a test, and after them passes of random clips of the same videos.

    Args:
        plain: The clips without chance.
        random: Clips of the same manifest that differ from epoch to epoch.
        passes: How many random clips of each video.
    """

    def __init__(self, plain: VideoClips, random: VideoClips, *, passes: int) -> None:
        self.manifest = plain.manifest
        self.passes = passes
        self._plain = plain
        self._random = random

    def __len__(self) -> int:
        return (1 + self.passes) * len(self._plain)

    def __getitem__(self, index: int) -> Sample:
        epoch, row = divmod(index, len(self._plain))
        return self._random[SampleKey(epoch, row)] if epoch else self._plain[row]


@dataclass(frozen=True)
class ClipPlan:
    """How the clips of a probe are cut from its videos.

    `num_frames`, `fps` and `frame_step` as in `eval_clips`; `layout` of a test, of which training has the
    segments and one view; `augment` random views of each training video, drawn by `seed`, from anywhere in the
    video (in its part, of several segments), with the published augmentation of probes.
    """

    num_frames: int | None = None
    fps: float | None = None
    decoder: str = "auto"
    layout: ClipLayout = ONE_CLIP
    augment: int = 0
    seed: int = 0
    frame_step: int | None = None

    def __post_init__(self) -> None:
        if self.augment < 0:
            raise ProbeError(f"augment {self.augment}: give 0 or more random views of each training video.")

    @property
    def train_layout(self) -> ClipLayout:
        """Clips of a video in training."""
        return replace(self.layout, views=1)

    def train(self, manifest: Manifest, encoder: VideoEncoder) -> VideoClips | AugmentedClips:
        """The clips to train on, for this encoder."""
        plain = self._plain(manifest, encoder, self.train_layout)
        if not self.augment:
            return plain
        random = VideoClips(
            manifest,
            sampler=_sampler(
                encoder, self.num_frames, (self.fps, self.frame_step), "random", self.layout.segments
            ),
            transform=ProbeTrainTransform(size=encoder.config["img_size"]),
            decoder=self.decoder,
            seed=self.seed,
        )
        return AugmentedClips(plain, random, passes=self.augment)

    def test(self, manifest: Manifest, encoder: VideoEncoder) -> VideoClips:
        """The clips to test on, for this encoder."""
        return self._plain(manifest, encoder, self.layout)

    def preprocessing(self, *, training: bool) -> dict[str, Any]:
        """What tokens of these clips depend on, beside videos and encoder: the key of cached ones."""
        layout = self.train_layout if training else self.layout
        drawn = {"augment": self.augment, "seed": self.seed} if self.augment and training else {}
        rate = {"fps": self.fps, "frame_step": self.frame_step}
        return {"num_frames": self.num_frames, **rate, "decoder": self.decoder, **asdict(layout), **drawn}

    def _plain(self, manifest: Manifest, encoder: VideoEncoder, layout: ClipLayout) -> VideoClips:
        return eval_clips(
            manifest,
            encoder,
            num_frames=self.num_frames,
            fps=self.fps,
            frame_step=self.frame_step,
            decoder=self.decoder,
            layout=layout,
        )


def _sampler(
    encoder: VideoEncoder,
    num_frames: int | None,
    rate: tuple[float | None, int | None],
    position: Literal["centre", "random"],
    segments: int,
) -> FrameSampler:
    frames = num_frames or encoder.config["num_frames"]
    sampler = ClipSampler(num_frames=frames, fps=rate[0], frame_step=rate[1], position=position)
    return sampler if segments == 1 else SegmentSampler(sampler=sampler, num_segments=segments)
