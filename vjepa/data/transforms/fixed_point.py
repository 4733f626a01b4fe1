"""Resizing in integers, as in the published evaluation: OpenCV's bilinear, to the bit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from vjepa.types import check_bytes


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


def resize_fixed_point(
    frames: UInt8[Tensor, "t c h w"], size: tuple[int, int], cut: Box | None = None
) -> UInt8[Tensor, "t c h2 w2"]:
    """Resize bilinearly to `size`, height and width, in 11-bit fixed point: first along the rows, then across them.

    It is fastest with channels last in memory, as decoders return frames. Of the resized frames, only the part `cut`
    is computed (default: all).
    """
    check_bytes(frames)
    cut = cut or Box(0, 0, *size)
    if frames.shape[-2:] == size:
        return frames[:, :, cut.top : cut.top + cut.height, cut.left : cut.left + cut.width]
    y0, y1, wy0, wy1 = _taps(frames.shape[2], size[0], cut.top, cut.height)
    x0, x1, wx0, wx1 = _taps(frames.shape[3], size[1], cut.left, cut.width)
    rows = slice(int(y0[0]), int(y1[-1]) + 1)
    y0, y1 = y0 - rows.start, y1 - rows.start
    out = torch.empty(len(frames), cut.height, cut.width, frames.shape[1], dtype=torch.uint8)
    # one frame at a time fits in the cache: 5 times as fast
    for frame, made in zip(frames, out, strict=True):
        columns = frame[:, rows].permute(2, 1, 0).contiguous()  # (W, H, C): a column is contiguous
        across = columns.index_select(0, x0).int().mul_(wx0).add_(columns.index_select(0, x1).int().mul_(wx1))
        lines = across.bitwise_right_shift_(4).transpose(0, 1).contiguous()  # (H, W, C)
        upper = lines.index_select(0, y0).mul_(wy0).bitwise_right_shift_(16)
        lower = lines.index_select(0, y1).mul_(wy1).bitwise_right_shift_(16)
        made.copy_(upper.add_(lower).add_(2).bitwise_right_shift_(2).clamp_(0, 255))
    return out.permute(0, 3, 1, 2)


def _taps(length: int, new_length: int, start: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the two sources of `count` new pixels from `start`, and their weights out of 2048 (count, 1, 1)."""
    centre = (torch.arange(start, start + count, dtype=torch.float64) + 0.5) * (length / new_length) - 0.5
    low = centre.floor()
    share = (centre - low).float()
    share = torch.where((low < 0) | (low >= length - 1), torch.zeros(()), share)
    low = low.long().clamp(0, length - 1)
    weights = (((1 - share) * 2048).round().int(), (share * 2048).round().int())
    return low, (low + 1).clamp(max=length - 1), weights[0][:, None, None], weights[1][:, None, None]
