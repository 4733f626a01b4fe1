import numpy as np
import pytest

from vjepa.worlds.physics import EVENTS, SPIN, TICKS, Motion, simulate

RADIUS, BALL_RADIUS = 15.0, 5.0
SEEDS = range(8)


def motion(event: str, seed: int, num_frames: int = 43) -> Motion:
    return simulate(
        event,
        radius=RADIUS,
        ball_radius=BALL_RADIUS,
        num_frames=num_frames,
        rng=np.random.default_rng(seed),
    )


def velocity(path: np.ndarray) -> np.ndarray:
    return np.diff(path, axis=0) / (TICKS / (len(path) - 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bounce_turns_back_at_the_wall_and_keeps_its_speed(seed):
    clip = motion("bounce", seed)
    pace = velocity(clip.position)
    assert clip.wall is not None and np.ptp(clip.wall[:, 0]) == 0
    np.testing.assert_allclose(pace[-1], pace[0] * [-1, 1], rtol=1e-3)
    # it turns where its edge meets the wall's face, 1.5 pixels before the wall's middle line
    gap = clip.wall[0, 0] - clip.position[:, 0].max() - RADIUS - 1.5
    assert abs(gap) < 0.9  # the step of the simulation times its speed


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fall_accelerates_evenly(seed):
    acceleration = np.diff(velocity(motion("fall", seed).position), axis=0) / (TICKS / 42)
    np.testing.assert_allclose(acceleration, np.broadcast_to(acceleration[0], acceleration.shape), atol=1e-6)
    assert 0.25 <= acceleration[0, 0] <= 0.38 and acceleration[0, 1] == pytest.approx(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_slide_slows_down_to_a_stop(seed):
    speed = np.hypot(*velocity(motion("slide", seed).position).T)
    assert speed[0] > 3 and (np.diff(speed) < 1e-6).all()
    np.testing.assert_allclose(speed[-8:], 0, atol=0.02)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_collision_hands_the_momentum_of_the_ball_to_a_hero_at_rest(seed):
    clip = motion("collide", seed)
    assert clip.ball is not None
    hero, ball = velocity(clip.position), velocity(clip.ball)
    assert np.abs(hero[:6]).max() == 0 and hero[-1, 0] > 2
    whole_steps = np.ones(len(hero), dtype=bool)
    whole_steps[np.abs(np.diff(hero[:, 0], prepend=0)) > 1e-6] = False  # contact falls within this step
    np.testing.assert_allclose(
        (hero + ball)[whole_steps], np.broadcast_to(ball[0], hero.shape)[whole_steps], atol=1e-3
    )
    nearest = np.hypot(*(clip.position - clip.ball).T).min()
    assert nearest == pytest.approx(RADIUS + BALL_RADIUS, abs=0.9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pass_goes_straight_on_at_an_even_pace(seed):
    clip = motion("pass", seed)
    pace = velocity(clip.position)
    np.testing.assert_allclose(pace, np.broadcast_to(pace[0], pace.shape), atol=1e-6)
    assert 20 < np.ptp(clip.position[:, 0]) < 35 and np.ptp(clip.position[:, 1]) < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_a_spin_turns_in_place_and_nothing_else_turns(seed):
    clip = motion("spin", seed)
    assert np.abs(clip.position).max() < 1e-9
    assert clip.angle[0] == pytest.approx(-clip.angle[-1], abs=1e-6)
    assert abs(clip.angle[-1] - clip.angle[0]) == pytest.approx(SPIN, abs=1e-6)
    for event in set(EVENTS) - {"spin"}:
        assert np.abs(motion(event, seed).angle).max() < 1e-6, event


@pytest.mark.parametrize("event", [e for e in EVENTS if e not in ("bounce", "collide")])
def test_more_frames_show_the_same_motion_in_finer_steps(event):
    coarse, fine = motion(event, 0, num_frames=11), motion(event, 0, num_frames=41)
    np.testing.assert_allclose(fine.position[::4], coarse.position, atol=0.6)
    np.testing.assert_allclose(fine.angle[::4], coarse.angle, atol=1e-6)


def test_placing_turns_mirrors_and_moves_everything_alike():
    clip = motion("collide", 0)
    offset = np.array([20.0, 30.0])
    placed = clip.placed(heading=np.pi / 2, mirrored=True, offset=offset)
    # a quarter turn sends +x to +y; mirrored about its axis, +y goes to +x and not to -x
    np.testing.assert_allclose(placed.position - offset, clip.position[:, ::-1], atol=1e-9)
    np.testing.assert_allclose(placed.ball - offset, clip.ball[:, ::-1], atol=1e-9)
    spin = motion("spin", 0)
    mirrored = spin.placed(heading=0.0, mirrored=True, offset=offset)
    np.testing.assert_allclose(mirrored.angle, -spin.angle)
