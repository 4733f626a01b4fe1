"""The frozen pass: videos to clips, clips to features, features to files and back.

>>> import vjepa.features
>>> store = vjepa.features.open("runs/features")  # doctest: +SKIP
>>> store.features.shape, store.rows[0].path  # doctest: +SKIP
(torch.Size([1000, 384]), 'data/clip_000.mp4')

Only what reads a folder is loaded at once; the other names, when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from vjepa.features.errors import FeaturesError
from vjepa.features.reader import FeatureRow, FeatureStore, Timeline, open

if TYPE_CHECKING:
    from vjepa.features.clip_spec import ClipSpec, default_transform
    from vjepa.features.extract import extract_features
    from vjepa.features.pooling import FeatureMaker
    from vjepa.features.store import RecordStore
    from vjepa.features.windows import Windows

__all__ = [
    "ClipSpec",
    "FeatureMaker",
    "FeatureRow",
    "FeatureStore",
    "FeaturesError",
    "RecordStore",
    "Timeline",
    "Windows",
    "default_transform",
    "extract_features",
    "open",
]

_HOMES = {
    "ClipSpec": "clip_spec",
    "FeatureMaker": "pooling",
    "RecordStore": "store",
    "Windows": "windows",
    "default_transform": "clip_spec",
    "extract_features": "extract",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'vjepa.features' has no attribute {name!r}.")
    return getattr(import_module(f"vjepa.features.{_HOMES[name]}"), name)
