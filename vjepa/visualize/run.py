"""Summary picture of a run: a clip, its masks, its tokens before and after training, and the learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vjepa.metrics import effective_rank
from vjepa.types import MaskPair, TokenGrid
from vjepa.visualize.curves import CURVES, DPI, INK, QUIET, draw_curve, read_curves, rendered
from vjepa.visualize.masks import mask_picture
from vjepa.visualize.pca import pca_strip
from vjepa.visualize.strips import clip_strip, tile_size

Row = tuple[str, str, Image.Image]  # title, explanation, strip

# inches
WIDTH, MARGIN, LABEL_WIDTH, ROW_GAP, HEAD, CURVES_HEIGHT = 13.0, 0.4, 2.3, 0.14, 0.8, 2.8


def run_picture(
    *,
    video: UInt8[Tensor, "3 frames height width"],
    grid: TokenGrid,
    masks: Mapping[str, MaskPair],
    target_tokens: Float[Tensor, "n d"],
    random_tokens: Float[Tensor, "n d"],
    metrics_csv: str | Path,
    title: str,
) -> Image.Image:
    """Draw the summary picture of a run.

    `video` is a held-out clip, uint8 and at the size of the encoder's input; of each strategy's `masks` the first row
    is shown. Tokens are those of the target encoder, and of one with random weights.
    """
    size = tile_size(*video.shape[2:])
    rows: list[Row] = [("A clip", "held out; the first frame of\neach tubelet", clip_strip(video, grid))]
    rows += [(name, shares(pair, grid), mask_picture(video, pair, grid)) for name, pair in masks.items()]
    for name, tokens in (("Trained encoder", target_tokens), ("Random encoder", random_tokens)):
        meaning = f"principal components of its\ntokens; effective rank {effective_rank(tokens):.1f}"
        rows.append((name, meaning, pca_strip(tokens, grid, size)))
    return _composed(rows, read_curves(metrics_csv), title)


def _composed(rows: list[Row], points: dict[str, list[tuple[int, float]]], title: str) -> Image.Image:
    from matplotlib.figure import Figure

    strip_width = WIDTH - 2 * MARGIN - LABEL_WIDTH
    heights = [strip_width * strip.height / strip.width for _, _, strip in rows]
    total = HEAD + sum(heights) + ROW_GAP * len(rows) + CURVES_HEIGHT + MARGIN
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, facecolor="white")
    figure.text(
        MARGIN / WIDTH, 1 - 0.42 / total, title, fontsize=15, fontweight="bold", color=INK, va="center"
    )
    top = HEAD
    for (name, meaning, strip), height in zip(rows, heights, strict=True):
        left = (MARGIN + LABEL_WIDTH) / WIDTH
        axes = figure.add_axes((left, 1 - (top + height) / total, strip_width / WIDTH, height / total))
        axes.imshow(strip, interpolation="lanczos")
        axes.set_axis_off()
        _label(figure, name, meaning, y=1 - (top + height / 2) / total, unit=1 / total)
        top += height + ROW_GAP
    _curves(figure, points, total)
    return rendered(figure)


def shares(pair: MaskPair, grid: TokenGrid) -> str:
    """Return a label with the shares of the hidden tokens and of the dropped excess tokens."""
    hidden, seen = pair.target.shape[1], pair.context.shape[1]
    dropped = len(grid) - hidden - seen
    pale = f"\npale: {dropped / len(grid):.0%} dropped" if dropped else ""
    return f"dark: {hidden / len(grid):.0%} to predict{pale}"


def _label(figure: Any, name: str, meaning: str, *, y: float, unit: float) -> None:
    x = MARGIN / WIDTH
    figure.text(x, y + 0.08 * unit, name, fontsize=11, fontweight="bold", color=INK, va="bottom")
    figure.text(x, y + 0.02 * unit, meaning, fontsize=8.5, color=QUIET, va="top", linespacing=1.4)


def _curves(figure: Any, points: dict[str, list[tuple[int, float]]], total: float) -> None:
    ticks, gap, below, height = 0.3, 0.8, 0.85, CURVES_HEIGHT - 1.0  # inches
    width = (WIDTH - 2 * MARGIN - ticks - gap * (len(CURVES) - 1)) / len(CURVES)
    for i, curve in enumerate(CURVES):
        left = MARGIN + ticks + i * (width + gap)
        axes = figure.add_axes((left / WIDTH, below / total, width / WIDTH, height / total))
        draw_curve(axes, curve, points)
