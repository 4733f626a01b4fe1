"""How a probe is run: the user's choices, then the published protocol, then the defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vjepa.features.clip_spec import ClipSpec
from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.protocols import protocol


@dataclass(frozen=True)
class ClipChoice:
    """How clips are cut, as far as the user says it; None leaves a value to the protocol, or to the default.

    Args:
        num_frames: Frames of a clip (default: the protocol's; without one, those of the run that trained the
            encoder, else its native ones).
        fps: Frames of the clip per second of video (default: the protocol's frame step; without one, the rate
            of the run that trained the encoder, else every frame).
        segments: Clips of a video, from equal parts of it, whose tokens the probe sees together; in training too
            (default: the protocol's, or 1).
        views: Squares along the longer side in the test, whose probabilities are averaged; 3 as published (default:
            the protocol's, or 1).
        layers: Blocks whose tokens the probe sees together, from 0 or -1 on (default: the protocol's, or the last).
        augment: Random views of each training video beside the plain one: RandAugment, crops and erased boxes.
    """

    num_frames: int | None = None
    fps: float | None = None
    segments: int | None = None
    views: int | None = None
    layers: tuple[int, ...] | None = None
    augment: int = 0


@dataclass(frozen=True)
class Recipe:
    """How clips are cut and probes trained, and `stored`, the same in words for the result."""

    spec: ClipSpec
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
    """Return the recipe of a run.

    Raises:
        ProbeError: If there is no such protocol, or it has another number of classes.
    """
    plan = None if name is None else protocol(name)
    if plan is not None and plan.num_classes not in (None, num_classes):
        raise ProbeError(
            f"protocol {name} has {plan.num_classes} classes, the training manifest {num_classes}. Give a manifest "
            "with all of them, or drop --protocol."
        )
    chosen = {key: value for key, value in asdict(choice).items() if key != "augment" and value is not None}
    spec = ClipSpec.for_encoder(encoder, **chosen) if plan is None else plan.spec(encoder, **chosen)
    settings = grid if plan is None else plan.settings(grid, num_videos)
    clips = {key: getattr(spec, key) for key in ("num_frames", "fps", "frame_step", "segments", "views")}
    used = {**clips, "levels": spec.layers, "num_classes": num_classes, **asdict(settings)}
    published = {} if plan is None else {"epochs": plan.epochs, "departures": plan.departures}
    return Recipe(spec=spec, settings=settings, stored={"protocol": name, **used, **published})
