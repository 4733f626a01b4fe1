"""From a decoded clip to what an encoder takes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vjepa.data.transforms.video import EvalTransform
from vjepa.models import VideoEncoder
from vjepa.types import Clip


@dataclass(frozen=True)
class ClipToInput:
    """Turns a decoded `Clip` into a normalised (C, T, H, W) tensor; draws nothing."""

    transform: EvalTransform

    def __call__(self, clip: Clip) -> Float[Tensor, "3 t h w"]:
        return self.transform(clip.frames)


def eval_transform(encoder: VideoEncoder) -> EvalTransform:
    """The largest central view, at the encoder's native height and width: what probes see, too.

    >>> eval_transform(VideoEncoder(img_size=64, depth=1)).short_side
    64
    """
    size = encoder.config["img_size"]
    return EvalTransform(size=size, short_side=size if isinstance(size, int) else min(size))


def default_transform(encoder: VideoEncoder) -> ClipToInput:
    """Makes input of `encoder` from what `vjepa.read_clip` returns: `(C, T, H, W)`, without the batch.

    Args:
        encoder: The encoder whose native height and width are wanted.
    """
    return ClipToInput(eval_transform(encoder))
