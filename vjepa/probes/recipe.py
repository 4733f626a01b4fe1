"""What a probe is run with: what was asked for, over the published protocol, over the defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.protocols import Protocol, protocol
from vjepa.probes.views import ClipLayout


@dataclass(frozen=True)
class ClipChoice:
    """How clips are cut, as asked for; None leaves it to the protocol, or to the default."""

    num_frames: int | None = None
    fps: float | None = None
    segments: int | None = None
    views: int | None = None
    levels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Recipe:
    """How clips are cut and probes trained, and `stored`, the same in words for the result."""

    num_frames: int
    fps: float | None
    frame_step: int | None
    layout: ClipLayout
    settings: ProbeSettings
    stored: dict[str, Any]


def resolve_recipe(
    name: str | None,
    encoder: VideoEncoder,
    choice: ClipChoice,
    grid: ProbeSettings,
    *,
    num_classes: int,
    num_videos: int,
) -> Recipe:
    """The recipe of a run.

    Args:
        name: A key of `PROTOCOLS`; None: no protocol.
        encoder: The encoder to probe.
        choice: What was asked for of the clips.
        grid: What was asked for of the training; what differs from the default stays.
        num_classes: Of the training manifest.
        num_videos: Of the training manifest.

    Raises:
        ProbeError: If there is no such protocol, or it is for another number of classes.
    """
    plan = None if name is None else protocol(name)
    if plan is not None and plan.num_classes not in (None, num_classes):
        raise ProbeError(
            f"protocol {name} has {plan.num_classes} classes, the training manifest {num_classes}. Give a manifest "
            "with all of them, or drop --protocol."
        )
    default = plan or Protocol(None, 1, 1, num_frames=encoder.config["num_frames"], frame_step=None)
    layout = ClipLayout(
        default.segments if choice.segments is None else choice.segments,
        default.views if choice.views is None else choice.views,
        default.levels(encoder.config["depth"]) if choice.levels is None else choice.levels,
    )
    settings = grid if plan is None else plan.settings(grid, num_videos)
    frames = choice.num_frames or default.num_frames
    frame_step = None if choice.fps is not None else default.frame_step
    used: dict[str, Any] = {"num_frames": frames, "fps": choice.fps, "frame_step": frame_step}
    used |= {"segments": layout.segments, "views": layout.views, "levels": layout.levels}
    used |= {"num_classes": num_classes, **asdict(settings)}
    published = {} if plan is None else {"epochs": plan.epochs, "departures": plan.departures}
    return Recipe(
        num_frames=frames,
        fps=choice.fps,
        frame_step=frame_step,
        layout=layout,
        settings=settings,
        stored={"protocol": name, **used, **published},
    )
