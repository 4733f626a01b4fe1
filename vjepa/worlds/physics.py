"""Physics of a clip: a pymunk simulation of the main object (the hero), and of the wall or ball that it meets.

The events: bounce off a wall, collide with a ball, fall, pass behind an occluder, slide to a stop, spin in place.
The hero starts at the origin and moves along +x. Lengths are in pixels of a 64-pixel picture, times in ticks: a clip
of any length lasts `TICKS` ticks. `scenes.py` then rotates and moves the result at random, so that neither position
nor direction reveals the event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pymunk
from jaxtyping import Float

EVENTS = ("bounce", "collide", "fall", "pass", "slide", "spin")
TICKS = 12.0  # length of a clip: an object at 3 pixels per tick crosses half of the picture
SPIN = 0.6  # radians that a spinning object turns per clip
STEPS_PER_FRAME = 4
BALL_RADIUS = (4.0, 6.0)  # radius of the striking ball and of the other distractors, pixels of 64
WALL_HALF_LENGTH = 15.0
WALL_HALF_WIDTH = 1.5


@dataclass(frozen=True)
class Motion:
    """Path of the hero, and the wall or ball that it meets, if any.

    `position` (T, 2) is in pixels of 64, `angle` (T,) in radians. `wall` is the two ends of the wall of a bounce,
    `ball` (T, 2) the path of the ball of a collision.
    """

    position: Float[np.ndarray, "t 2"]
    angle: Float[np.ndarray, "t"]
    wall: Float[np.ndarray, "2 2"] | None = None
    ball: Float[np.ndarray, "t 2"] | None = None

    def placed(self, *, heading: float, mirrored: bool, offset: Float[np.ndarray, "2"]) -> Motion:
        """Return the motion, mirrored about its axis if `mirrored`, rotated by `heading` and moved by `offset`."""
        cos, sin, sign = math.cos(heading), math.sin(heading), -1.0 if mirrored else 1.0
        turn = np.array([[cos, sin], [-sin * sign, cos * sign]])

        def place(points: np.ndarray | None) -> np.ndarray | None:
            return None if points is None else points @ turn + offset

        return Motion(
            position=self.position @ turn + offset,
            angle=self.angle * sign,
            wall=place(self.wall),
            ball=place(self.ball),
        )


def simulate(
    event: str, *, radius: float, ball_radius: float, num_frames: int, rng: np.random.Generator
) -> Motion:
    """Simulate one of `EVENTS`; `radius` is the hero's, in pixels of 64, `ball_radius` that of `collide`'s ball."""
    assert event in EVENTS, event
    space = pymunk.Space()
    hero = _body(space, radius=radius)
    wall = ball = None
    if event == "spin":
        turn = rng.choice((-1.0, 1.0)) * SPIN
        hero.angle, hero.angular_velocity = -turn / 2, turn / TICKS
    elif event == "bounce":
        wall = _bounce(space, hero, radius=radius, rng=rng)
    elif event == "fall":
        space.gravity = (rng.uniform(0.25, 0.38), 0.0)
        hero.velocity = (rng.uniform(-1.0, 0.2), rng.uniform(-1.2, 1.2))
    elif event == "slide":
        _friction(space, hero, rng=rng)
    elif event == "collide":
        ball = _strike(space, radius=radius, ball_radius=ball_radius, rng=rng)
    elif event == "pass":
        hero.velocity = (rng.uniform(1.9, 2.7), 0.0)
    tracks = _track(space, [hero] if ball is None else [hero, ball], num_frames)
    path = None if ball is None else tracks[1, :, :2]
    return Motion(position=tracks[0, :, :2], angle=tracks[0, :, 2], wall=wall, ball=path)


def _body(space: pymunk.Space, *, radius: float) -> pymunk.Body:
    body = pymunk.Body(1.0, pymunk.moment_for_circle(1.0, 0.0, radius))
    shape = pymunk.Circle(body, radius)
    shape.elasticity, shape.friction = 1.0, 0.0
    space.add(body, shape)
    return body


def _bounce(space: pymunk.Space, hero: pymunk.Body, *, radius: float, rng: np.random.Generator) -> np.ndarray:
    speed, slant = rng.uniform(2.2, 3.4), rng.uniform(-0.6, 0.6)
    hero.velocity = (speed * math.cos(slant), speed * math.sin(slant))
    contact = TICKS * rng.uniform(0.3, 0.7)
    x = hero.velocity.x * contact + radius + WALL_HALF_WIDTH
    y = hero.velocity.y * contact + rng.uniform(-4.0, 4.0)
    ends = np.array([[x, y - WALL_HALF_LENGTH], [x, y + WALL_HALF_LENGTH]])
    wall = pymunk.Segment(space.static_body, tuple(ends[0]), tuple(ends[1]), WALL_HALF_WIDTH)
    wall.elasticity, wall.friction = 1.0, 0.0
    space.add(wall)
    return ends


def _friction(space: pymunk.Space, hero: pymunk.Body, *, rng: np.random.Generator) -> None:
    speed, rest = rng.uniform(3.6, 5.0), TICKS * rng.uniform(0.45, 0.7)
    hero.velocity = (speed, 0.0)
    # the view is from above: a joint that only damps, with a bounded force, is dry friction
    friction = pymunk.PivotJoint(space.static_body, hero, (0.0, 0.0), (0.0, 0.0))
    friction.max_bias, friction.max_force = 0.0, speed / rest
    space.add(friction)


def _strike(
    space: pymunk.Space, *, radius: float, ball_radius: float, rng: np.random.Generator
) -> pymunk.Body:
    speed, contact = rng.uniform(2.2, 3.4), TICKS * rng.uniform(0.3, 0.6)
    ball = _body(space, radius=ball_radius)
    ball.position = (-(radius + ball_radius) - speed * contact, 0.0)
    ball.velocity = (speed, 0.0)
    return ball


def _track(
    space: pymunk.Space, bodies: list[pymunk.Body], num_frames: int
) -> Float[np.ndarray, "bodies t 3"]:
    tracks = np.empty((len(bodies), num_frames, 3))
    step = TICKS / (num_frames - 1) / STEPS_PER_FRAME
    for frame in range(num_frames):
        for row, body in zip(tracks, bodies, strict=True):
            row[frame] = body.position.x, body.position.y, body.angle
        for _ in range(STEPS_PER_FRAME):
            space.step(step)
    return tracks
