"""From a decoded clip to what an encoder takes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vjepa.data import EvalTransform, ViewsTransform
from vjepa.features.clip_spec import ClipSpec
from vjepa.models import VideoEncoder
from vjepa.types import Clip


@dataclass(frozen=True)
class ClipToInput:
    """A transform from a decoded `Clip` to a normalised (C, T, H, W) tensor; draws nothing."""

    transform: EvalTransform | ViewsTransform

    def __call__(self, clip: Clip) -> Float[Tensor, "3 t h w"]:
        return self.transform(clip.frames)


def default_transform(encoder: VideoEncoder) -> ClipToInput:
    """Return what turns a clip of `vjepa.read_clip` into input of `encoder`: (C, T, H, W), without the batch.

    Args:
        encoder: The encoder whose native height and width are wanted.
    """
    return ClipToInput(ClipSpec.for_encoder(encoder).transform())
