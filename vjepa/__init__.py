"""Video joint-embedding predictive models: sampling, masking, pre-training, probing, features.

The names below are loaded when they are first used: importing `vjepa` does nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vjepa.checkpoints import load_encoder, load_predictor
    from vjepa.data import read_clip
    from vjepa.features import default_transform
    from vjepa.models import Predictor, VideoEncoder, create_model, list_models
    from vjepa.probes import load_probe
    from vjepa.training import load_objective
    from vjepa.types import TokenGrid

__version__ = "0.1.0"

__all__ = [
    "Predictor",
    "TokenGrid",
    "VideoEncoder",
    "__version__",
    "create_model",
    "default_transform",
    "list_models",
    "load_encoder",
    "load_objective",
    "load_predictor",
    "load_probe",
    "read_clip",
]

_HOMES = {
    "Predictor": "vjepa.models",
    "TokenGrid": "vjepa.types",
    "VideoEncoder": "vjepa.models",
    "create_model": "vjepa.models",
    "default_transform": "vjepa.features",
    "list_models": "vjepa.models",
    "load_encoder": "vjepa.checkpoints",
    "load_objective": "vjepa.training",
    "load_predictor": "vjepa.checkpoints",
    "load_probe": "vjepa.probes",
    "read_clip": "vjepa.data",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'vjepa' has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
