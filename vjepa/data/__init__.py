"""The data room: from manifests and video files to batches of clips."""

from vjepa.data.clips import read_clip
from vjepa.data.datamodule import VideoDataModule
from vjepa.data.decoders.base import Decoder, decoder_class
from vjepa.data.decoders.opening import open_video
from vjepa.data.loading.dataset import Sample, VideoClips, collate
from vjepa.data.loading.failures import FailureLedger, TooManyUnreadableClipsError
from vjepa.data.loading.mixture import MixturePart
from vjepa.data.loading.order import SampleKey
from vjepa.data.loading.reading import Reading
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import Manifest, ManifestError, ManifestRow
from vjepa.data.sampling import ClipSampler, ShortVideoError, reference_indices
from vjepa.data.transforms.augment import ProbeTrainTransform
from vjepa.data.transforms.images import ImageEvalTransform, ImageTrainTransform
from vjepa.data.transforms.video import EvalTransform, RandomTransform, TrainTransform
from vjepa.data.transforms.views import SegmentSampler, ViewsTransform
from vjepa.errors import DecodeError

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
    "RandomTransform",
    "Reading",
    "Sample",
    "SampleKey",
    "SegmentSampler",
    "ShortVideoError",
    "TooManyUnreadableClipsError",
    "TrainTransform",
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
