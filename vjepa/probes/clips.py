"""The clips that a probe is trained and tested on."""

from __future__ import annotations

from torch.utils.data import Dataset

from vjepa.data.loading.dataset import Sample, VideoClips
from vjepa.data.loading.order import SampleKey
from vjepa.data.manifests.rows import Manifest
from vjepa.data.transforms.augment import ProbeTrainTransform
from vjepa.features.clip_spec import ClipSpec
from vjepa.probes.base import ProbeError


def eval_clips(manifest: Manifest, spec: ClipSpec, *, decoder: str = "auto") -> VideoClips:
    """Return the clips of a manifest without randomness: from the middle of each video, or of each of its segments.

    All segments and views of a video follow each other in one long clip, which `vjepa.features.encode.clip_tokens`
    takes apart.
    """
    return VideoClips(manifest, sampler=spec.sampler(), transform=spec.transform(), decoder=decoder)


class AugmentedClips(Dataset[Sample]):
    """One clip of every video as in a test, followed by passes of random clips of the same videos."""

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


def training_clips(
    manifest: Manifest, spec: ClipSpec, *, augment: int = 0, seed: int = 0, decoder: str = "auto"
) -> VideoClips | AugmentedClips:
    """Return the clips to train on: one plain view of each, and after them the random views.

    Args:
        manifest: The videos.
        spec: How a video becomes clips; training has its segments and one view.
        augment: Random views of each video, from anywhere in it (or in its segment), with the published augmentation
            of probes.
        seed: Seed of the random views.
        decoder: Backend that reads the videos.
    """
    if augment < 0:
        raise ProbeError(f"augment {augment}: give 0 or more random views of each training video.")
    spec = spec.one_view()
    plain = eval_clips(manifest, spec, decoder=decoder)
    if not augment:
        return plain
    height, width = spec.size
    random = VideoClips(
        manifest,
        sampler=spec.sampler("random"),
        transform=ProbeTrainTransform(
            size=height if height == width else spec.size, mean=spec.mean, std=spec.std
        ),
        decoder=decoder,
        seed=seed,
    )
    return AugmentedClips(plain, random, passes=augment)
