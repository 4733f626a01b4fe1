"""The data room: from manifests and video files to batches of clips."""

from vjepa.data.clips import read_clip
from vjepa.data.datamodule import VideoDataModule
from vjepa.data.dataset import Sample, VideoClips, collate
from vjepa.data.decoders.base import DecodeError, Decoder, decoder_class
from vjepa.data.failures import FailureLedger, TooManyFailures
from vjepa.data.manifest import Manifest, ManifestError, ManifestRow, read_manifest
from vjepa.data.order import SampleKey
from vjepa.data.reading import Reading
from vjepa.data.sampling import ClipSampler, ShortVideoError, reference_indices
from vjepa.data.transforms import EvalTransform, TrainTransform

__all__ = [
    "ClipSampler",
    "DecodeError",
    "Decoder",
    "EvalTransform",
    "FailureLedger",
    "Manifest",
    "ManifestError",
    "ManifestRow",
    "Reading",
    "Sample",
    "SampleKey",
    "ShortVideoError",
    "TooManyFailures",
    "TrainTransform",
    "VideoClips",
    "VideoDataModule",
    "collate",
    "decoder_class",
    "read_clip",
    "read_manifest",
    "reference_indices",
]
