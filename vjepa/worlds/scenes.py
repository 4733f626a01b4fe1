"""Content of a clip before it is rendered: its objects, and their positions in each frame.

Every scene has a main object (the hero), a wall, an occluder, a ball and other distractors, whatever the event, so
their presence reveals nothing. Coordinates are pixels of a 64-pixel picture, x to the right and y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from vjepa.worlds import shapes
from vjepa.worlds.physics import (
    BALL_RADIUS,
    EVENTS,
    TICKS,
    WALL_HALF_LENGTH,
    WALL_HALF_WIDTH,
    Motion,
    simulate,
)
from vjepa.worlds.textures import (
    BACKGROUNDS,
    TEXTURES,
    Background,
    Split,
    Texture,
    random_background,
    random_texture,
)

SIDE = 64.0
HERO_RADIUS = (14.0, 16.0)  # radius of the disc with the hero's area
OCCLUDER_HALF = (6.0, 16.0)  # half width, half height: a post too narrow to hide the whole hero
OCCLUDER_OFF = 7.0  # largest distance of the occluder from the hero's path
HERO_OFF = 16.0  # largest distance from the middle of the hero's path to that of the picture, per axis
MARGIN = 9.0  # least distance of the hero's centre from the picture's edge
HERO_TILT = 0.4  # largest tilt in radians, in all events: the tilt in one frame does not reveal a spin
CONTRAST = 85.0  # mean difference of luminance between the hero and the background: the unit of noise
TRIES = 64  # number of random positions tried for a wall that the hero must not touch


@dataclass(frozen=True)
class SceneSpec:
    """Settings that determine the content of a clip completely."""

    split: Split
    index: int
    event: str
    appearance: str
    texture: str
    background: str
    seed: int

    @property
    def path(self) -> str:
        """Path of the video, relative to the manifest."""
        return f"{self.split}/{self.index:06d}.mp4"

    @property
    def group(self) -> str:
        """Group of the clips with the same families of texture and background."""
        return f"{self.split}-{self.background}-{self.texture}"


@dataclass(frozen=True)
class Sprite:
    """Object to paint, with `centre` (T, 2) and `angle` (T,); `reach` is its largest distance from the centre."""

    outline: shapes.Outline
    texture: Texture
    centre: Float[np.ndarray, "t 2"]
    angle: Float[np.ndarray, "t"]
    reach: float


@dataclass(frozen=True)
class Scene:
    """Clip to render: the `background` and its `drift` (T, 2), `sprites` from back to front, camera `jitter` (T, 2).

    The ground truth is `motion` and `visible` (T,), the share of the hero that is in the picture and not occluded.
    """

    background: Background
    drift: Float[np.ndarray, "t 2"]
    sprites: tuple[Sprite, ...]
    jitter: Float[np.ndarray, "t 2"]
    motion: Motion
    visible: Float[np.ndarray, "t"]


def scene_spec(split: Split, index: int, *, seed: int) -> SceneSpec:
    """Draw the settings of clip `index` of a split; any 60 consecutive clips have balanced events and appearances."""
    state = np.random.SeedSequence([seed, ("train", "val").index(split), index])
    rng = np.random.default_rng(state)
    return SceneSpec(
        split=split,
        index=index,
        event=EVENTS[index % len(EVENTS)],
        appearance=shapes.SHAPES[index // len(EVENTS) % len(shapes.SHAPES)],
        texture=str(rng.choice(TEXTURES[split])),
        background=str(rng.choice(BACKGROUNDS[split])),
        seed=int(rng.integers(2**62)),
    )


def compose(spec: SceneSpec, *, num_frames: int, num_distractors: int) -> Scene:
    """Draw the scene of a clip; of the distractors, small moving objects, the first is the ball in `collide`."""
    rng = np.random.default_rng([spec.seed, 0])
    radius, ball_radius = rng.uniform(*HERO_RADIUS), rng.uniform(*BALL_RADIUS)
    motion = simulate(spec.event, radius=radius, ball_radius=ball_radius, num_frames=num_frames, rng=rng)
    motion = _placed(motion, sideways=spec.event == "fall", rng=rng)
    luminance = rng.uniform(75, 115)
    paint = partial(random_texture, spec.texture, background=luminance, rng=rng)
    wall, wall_angle = _wall(motion, radius=radius, rng=rng)
    occluder, tilt = _occluder(motion, rng)
    tilt_room = HERO_TILT - np.abs(motion.angle).max()
    wall_half = (WALL_HALF_WIDTH, WALL_HALF_LENGTH)
    sprites = [_still(wall, wall_angle, wall_half, paint(contrast=(60.0, 100.0)), num_frames)]
    for number in range(num_distractors):
        path = motion.ball if number == 0 and motion.ball is not None else _straight_path(num_frames, rng)
        size = ball_radius if number == 0 else rng.uniform(*BALL_RADIUS)
        sprites.append(_distractor(path, radius=size, texture=paint(contrast=(50.0, 90.0)), rng=rng))
    hero = Sprite(
        outline=shapes.hero_outline(spec.appearance, radius),
        texture=paint(contrast=(0.85 * CONTRAST, 1.15 * CONTRAST)),
        centre=motion.position,
        angle=motion.angle + rng.uniform(-tilt_room, tilt_room),
        reach=2.0 * radius + 1,
    )
    screen = _still(occluder, tilt, OCCLUDER_HALF, paint(contrast=(30.0, 70.0)), num_frames)
    pace, course = rng.uniform(0.3, 0.9), rng.uniform(0, 2 * math.pi)
    ticks = np.linspace(0, TICKS, num_frames)[:, None]
    return Scene(
        background=random_background(spec.background, luminance=luminance, rng=rng),
        drift=rng.uniform(0, 96, size=2) + pace * ticks * np.array([math.cos(course), math.sin(course)]),
        sprites=(*sprites, hero, screen),
        jitter=rng.normal(0, 0.4, size=(num_frames, 2)),
        motion=motion,
        visible=_visible(motion.position, occluder, tilt, radius=radius),
    )


def _placed(motion: Motion, *, sideways: bool, rng: np.random.Generator) -> Motion:
    """Rotate a motion by a random heading (up or down for a fall), and move all of it into the picture."""
    heading = float(rng.choice((-0.5, 0.5)) * math.pi if sideways else rng.uniform(0, 2 * math.pi))
    mirrored = bool(rng.random() < 0.5)
    turned = motion.placed(heading=heading, mirrored=mirrored, offset=np.zeros(2))
    low, high = MARGIN - turned.position.min(axis=0), SIDE - MARGIN - turned.position.max(axis=0)
    middle, slack = (low + high) / 2, np.clip((high - low) / 2, 0, HERO_OFF)
    offset = middle + slack * rng.uniform(-1, 1, size=2)
    return motion.placed(heading=heading, mirrored=mirrored, offset=offset)


def _wall(motion: Motion, *, radius: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return centre and angle of the wall: the wall that is hit, or one that the hero nears but does not touch."""
    if motion.wall is not None:
        along = motion.wall[1] - motion.wall[0]
        return motion.wall.mean(axis=0), math.atan2(along[1], along[0]) - math.pi / 2
    middles, angles = rng.uniform(4, SIDE - 4, size=(TRIES, 2)), rng.uniform(0, math.pi, size=TRIES)
    offset = motion.position[None] - middles[:, None]
    across = offset[..., 0] * np.cos(angles)[:, None] + offset[..., 1] * np.sin(angles)[:, None]
    along = -offset[..., 0] * np.sin(angles)[:, None] + offset[..., 1] * np.cos(angles)[:, None]
    beyond = np.maximum(np.abs(along) - WALL_HALF_LENGTH, 0)
    gap = np.hypot(across, beyond).min(axis=1) - radius - WALL_HALF_WIDTH
    clear = np.where(gap > 1, gap, np.inf)
    chosen = int(np.argmin(clear)) if np.isfinite(clear).any() else int(np.argmax(gap))
    return middles[chosen], float(angles[chosen])


def _occluder(motion: Motion, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draw centre and angle of the occluder: near a random point of the hero's path, at any angle.

    So in every event it hides a part of the hero in some frames, and neither its place nor the hidden part reveals
    a pass.
    """
    away, course = rng.uniform(0, OCCLUDER_OFF), rng.uniform(0, 2 * math.pi)
    place = motion.position[rng.integers(len(motion.position))]
    return place + away * np.array([math.cos(course), math.sin(course)]), float(rng.uniform(0, math.pi))


def _visible(
    position: Float[np.ndarray, "t 2"], occluder: Float[np.ndarray, "2"], angle: float, *, radius: float
) -> Float[np.ndarray, "t"]:
    """Return the share of a disc at `position` that is inside the picture and not behind the occluder."""
    turns = np.arange(32) * 2.399963  # the golden angle: points of a sunflower pattern fill a disc evenly
    spread = radius * np.sqrt((np.arange(32) + 0.5) / 32)
    points = position[:, None] + np.stack([spread * np.cos(turns), spread * np.sin(turns)], axis=1)
    x, y = points[..., 0] - occluder[0], points[..., 1] - occluder[1]
    u, v = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
    hidden = (np.abs(u) < OCCLUDER_HALF[0]) & (np.abs(v) < OCCLUDER_HALF[1])
    outside = ((points < 0) | (points > SIDE)).any(axis=-1)
    return 1.0 - (hidden | outside).mean(axis=1)


def _straight_path(num_frames: int, rng: np.random.Generator) -> Float[np.ndarray, "t 2"]:
    speed, course = rng.uniform(1.5, 3.4), rng.uniform(0, 2 * math.pi)
    ticks = np.linspace(0, TICKS, num_frames) - rng.uniform(0, TICKS)
    return rng.uniform(6, SIDE - 6, size=2) + speed * ticks[:, None] * np.array(
        [math.cos(course), math.sin(course)]
    )


def _still(
    centre: np.ndarray, angle: float, half: tuple[float, float], texture: Texture, num_frames: int
) -> Sprite:
    """Return a rectangle that does not move, of half width and half height `half`."""
    return Sprite(
        outline=partial(shapes.rectangle, half_width=half[0], half_height=half[1]),
        texture=texture,
        centre=np.tile(centre, (num_frames, 1)),
        angle=np.full(num_frames, angle),
        reach=math.hypot(*half) + 1,
    )


def _distractor(
    path: Float[np.ndarray, "t 2"], *, radius: float, texture: Texture, rng: np.random.Generator
) -> Sprite:
    depth = rng.uniform(0.1, 0.3)
    spin = rng.uniform(-0.2, 0.2) * TICKS
    return Sprite(
        outline=partial(shapes.blob, radius=radius, lobes=int(rng.integers(2, 6)), depth=depth),
        texture=texture,
        centre=path,
        angle=rng.uniform(0, 2 * math.pi) + np.linspace(0, spin, len(path)),
        reach=radius * (1 + depth) + 1,
    )
