"""Frozen features of videos."""

from vjepa.extraction.clips import TimedClips
from vjepa.extraction.features import ExtractionError, Features, extract_features, write_features
from vjepa.extraction.preprocessing import ClipToInput, default_transform

__all__ = [
    "ClipToInput",
    "ExtractionError",
    "Features",
    "TimedClips",
    "default_transform",
    "extract_features",
    "write_features",
]
