"""The shapes of a run's clips, and whether its encoder can cut them into tokens."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import nn

from vjepa.data import VideoDataModule
from vjepa.data.loading.mixture import MixturePart
from vjepa.errors import SettingError
from vjepa.models import VideoEncoder
from vjepa.models.config import height_and_width
from vjepa.training.dry_run import Clips

log = logging.getLogger(__name__)

ANY_FRAME = (3, 64, 64)  # transforms cut all frames to one size


def clip_shapes(datamodule: VideoDataModule) -> dict[Clips, float]:
    """Return the share of each shape among a recipe's batches, the largest first, without reading its data."""
    parts = datamodule.parts or [MixturePart(source="")]
    shares: dict[Clips, float] = {}
    for part in parts:
        sampler = part.sampler or datamodule.sampler
        frames = torch.zeros(sampler.num_frames, *ANY_FRAME, dtype=torch.uint8)
        clip = (part.transform or datamodule.transform).centred()(frames, np.random.default_rng(0))
        shape = (part.batch_size or datamodule.batch_size, *clip.shape)
        shares[shape] = shares.get(shape, 0.0) + part.weight / sum(each.weight for each in parts)
    return dict(sorted(shares.items(), reverse=True))


def check_clips(encoder: nn.Module, data: object) -> None:
    """Check that no pixel or frame of a run's clips is left over; say it if their size is not the encoder's.

    Raises:
        SettingError: If the patches or tubelets do not cover them.
    """
    if not isinstance(encoder, VideoEncoder) or not isinstance(data, VideoDataModule):
        return
    patch, tubelet = encoder.config["patch_size"], encoder.config["tubelet_size"]
    native = height_and_width(encoder.config["img_size"])
    for _, _, frames, *size in clip_shapes(data):
        if size[0] % patch or size[1] % patch:
            raise SettingError(
                f"clips of {size[0]} x {size[1]} pixels, patches of {patch}: the rest would not be seen. Set the "
                f"transform's size (--data.transform.size) to multiples of {patch}."
            )
        if frames > 1 and frames % tubelet:
            raise SettingError(
                f"clips of {frames} frames, tubelets of {tubelet}: the last frames would not be seen. Set "
                f"the sampler's num_frames (--data.sampler.num_frames) to a multiple of {tubelet}."
            )
        if tuple(size) != native:
            log.warning(
                "clips of %d x %d pixels, the encoder's native size is %d x %d: positions are stretched or continued",
                *size,
                *native,
            )
