"""Learning curves of a run, from its metrics.csv."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vjepa.errors import SettingError
from vjepa.readers import content_of, csv_errors

INK, QUIET, GRID = "#20242c", "#6b7280", "#e5e7eb"
COLOURS = {"train": "#2563a8", "val": "#d9631e"}
DPI = 120


@dataclass(frozen=True)
class Curve:
    """Quantity to draw: its name in the log, its title, and a level to compare with."""

    name: str
    title: str
    level: float | None = None
    level_name: str = ""


CURVES = (
    Curve("loss_over_mean", "error divided by the error of the mean token", 1.0, "nothing learned"),
    Curve("target_rank", "effective rank of the target tokens"),
)


def read_curves(metrics_csv: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Read the points (step, value) of every column of a CSV log, without empty cells.

    Raises:
        ValueError: If the file is not the log of a run.
    """
    with csv_errors(metrics_csv), Path(metrics_csv).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "step" not in rows[0]:
        raise SettingError(
            f"{metrics_csv} is not the log of a run: no column 'step'. Give the metrics.csv of vjepa fit."
        )
    names = [name for name in rows[0] if name not in ("step", "epoch")]
    with content_of(metrics_csv, "the log of a run"):
        return {name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in names}


def draw_curve(axes: Any, curve: Curve, points: dict[str, list[tuple[int, float]]]) -> None:
    """Draw the training and validation curves of a quantity into matplotlib axes."""
    for stage, colour in COLOURS.items():
        drawn = points.get(f"{stage}/{curve.name}", [])
        if not drawn:
            continue
        steps, values = zip(*drawn, strict=True)
        mark = "o" if len(drawn) < 12 else ""
        label = "held out" if stage == "val" else "training"
        axes.plot(steps, values, color=colour, linewidth=1.8, marker=mark, markersize=4, label=label)
    if curve.level is not None:
        axes.axhline(curve.level, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label=curve.level_name)
    axes.set_title(curve.title, loc="left", fontsize=10, color=INK, pad=8)
    axes.set_xlabel("optimiser step", fontsize=9, color=QUIET)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.tick_params(colors=QUIET, labelsize=8, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, labelcolor=QUIET)


def learning_curves(metrics_csv: str | Path) -> Image.Image:
    """Draw curves of a run's health: how much it learns, and whether its features collapse."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    points = read_curves(metrics_csv)
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.04)
    figure = Figure(figsize=(10, 3), dpi=DPI, facecolor="white", layout=layout)
    for axes, curve in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        draw_curve(axes, curve, points)
    return rendered(figure)


def rendered(figure: Any) -> Image.Image:
    """Render a matplotlib figure to an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")
