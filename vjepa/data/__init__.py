"""The data room: from manifests and video files to batches of clips."""

from vjepa.data.augment import ProbeTrainTransform
from vjepa.data.clips import read_clip
from vjepa.data.datamodule import VideoDataModule
from vjepa.data.dataset import Sample, VideoClips, collate
from vjepa.data.decoders.base import DecodeError, Decoder, decoder_class
from vjepa.data.failures import FailureLedger, TooManyFailures
from vjepa.data.image_transforms import ImageEvalTransform, ImageTrainTransform
from vjepa.data.manifest import Manifest, ManifestError, ManifestRow, read_manifest
from vjepa.data.mixture import MixturePart
from vjepa.data.order import SampleKey
from vjepa.data.reading import Reading
from vjepa.data.remote import open_video
from vjepa.data.sampling import ClipSampler, ShortVideoError, reference_indices
from vjepa.data.transforms import EvalTransform, TrainingTransform, TrainTransform
from vjepa.data.views import SegmentSampler, ViewsTransform

__all__ = [
    "ClipSampler",
    "DecodeError",
    "Decoder",
    "EvalTransform",
    "FailureLedger",
    "ImageEvalTransform",
    "ImageTrainTransform",
    "Manifest",
    "ManifestError",
    "ManifestRow",
    "MixturePart",
    "ProbeTrainTransform",
    "Reading",
    "Sample",
    "SampleKey",
    "SegmentSampler",
    "ShortVideoError",
    "TooManyFailures",
    "TrainTransform",
    "TrainingTransform",
    "VideoClips",
    "VideoDataModule",
    "ViewsTransform",
    "collate",
    "decoder_class",
    "open_video",
    "read_clip",
    "read_manifest",
    "reference_indices",
]
