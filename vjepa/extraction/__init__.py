"""Frozen features of videos."""

from vjepa.extraction.errors import ExtractionError
from vjepa.extraction.features import ClipSource, extract_features
from vjepa.extraction.parts import Parts
from vjepa.extraction.pooling import FeatureMaker
from vjepa.extraction.preprocessing import ClipToInput, default_transform
from vjepa.extraction.windows import Windows

__all__ = [
    "ClipSource",
    "ClipToInput",
    "ExtractionError",
    "FeatureMaker",
    "Parts",
    "Windows",
    "default_transform",
    "extract_features",
]
