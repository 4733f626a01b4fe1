"""What a scene holds, and what its labels may and may not be read from."""

from collections import Counter

import numpy as np
import pytest

from vjepa.worlds.physics import EVENTS
from vjepa.worlds.scenes import MARGIN, SIDE, Scene, compose, scene_spec
from vjepa.worlds.shapes import SHAPES
from vjepa.worlds.textures import BACKGROUNDS, TEXTURES
from vjepa.worlds.world import WorldConfig, draw, scene_specs

CHANCE = 1 / len(EVENTS)


def scene(index: int, num_distractors: int = 1) -> Scene:
    return compose(scene_spec("train", index, seed=3), num_frames=16, num_distractors=num_distractors)


def test_events_and_appearances_are_balanced_together():
    specs = [scene_spec("train", index, seed=0) for index in range(7, 127)]
    counts = Counter((spec.event, spec.appearance) for spec in specs)
    assert len(counts) == len(EVENTS) * len(SHAPES) and set(counts.values()) == {2}


def test_train_and_val_share_no_paint_no_seed_and_no_group():
    train, val = ([scene_spec(split, i, seed=0) for i in range(120)] for split in ("train", "val"))
    for field in ("texture", "background", "group", "seed", "path"):
        assert not {getattr(s, field) for s in train} & {getattr(s, field) for s in val}, field
    assert {s.texture for s in train} == set(TEXTURES["train"])
    assert {s.background for s in val} == set(BACKGROUNDS["val"])


def test_another_seed_is_another_world():
    seeds = [{scene_spec("train", i, seed=seed).seed for i in range(50)} for seed in (0, 1)]
    assert len(seeds[0] | seeds[1]) == 100


def test_every_event_has_the_same_scenery():
    for index, event in enumerate(EVENTS):
        sprites = scene(index, num_distractors=3).sprites
        assert len(sprites) == 1 + 3 + 1 + 1, event  # wall, distractors, hero, occluder
        # the same sizes whatever happens: wall first, occluder last
        assert sprites[0].reach == pytest.approx(scene(0).sprites[0].reach)
        assert sprites[-1].reach == pytest.approx(scene(0).sprites[-1].reach)


@pytest.mark.parametrize("index", range(24))
def test_the_hero_stays_in_the_picture_and_moves_at_a_visible_pace(index):
    position = scene(index).motion.position
    assert position.min() > MARGIN - 3 and position.max() < SIDE - MARGIN + 3
    step = np.hypot(*np.diff(position, axis=0).T)
    assert step.max() < 4.0
    assert step.max() > 1.0 or EVENTS[index % len(EVENTS)] == "spin"


def test_every_event_hides_a_part_of_the_hero_and_none_all_of_it():
    least = {event: [] for event in EVENTS}
    for index in range(240):
        least[EVENTS[index % len(EVENTS)]].append(scene(index).visible.min())
    for event, visible in least.items():
        assert 0.3 < np.mean(visible) < 0.8, event
        assert min(visible) > 0.1, event


def ridge_accuracy(features: np.ndarray, labels: np.ndarray, *, penalty: float) -> float:
    """Accuracy on the last third of the rows of a ridge classifier fitted to the first two."""
    fitted = len(features) * 2 // 3
    middle, spread = features[:fitted].mean(axis=0), features[:fitted].std(axis=0) + 1e-6
    rows = np.c_[(features - middle) / spread, np.ones(len(features))]
    gram = rows[:fitted].T @ rows[:fitted] + penalty * np.eye(rows.shape[1])
    weights = np.linalg.solve(gram, rows[:fitted].T @ np.eye(labels.max() + 1)[labels[:fitted]])
    return float(((rows[fitted:] @ weights).argmax(axis=1) == labels[fitted:]).mean())


def over_time(scene: Scene) -> np.ndarray:
    """What the hero does in the course of a clip, whatever its place and heading."""
    steps = np.diff(scene.motion.position, axis=0)
    change = np.hypot(*np.diff(steps, axis=0).T)
    turn = np.abs(np.diff(scene.motion.angle))
    return np.r_[np.hypot(*steps.T), np.sort(change), turn, scene.visible, (steps[0] * steps[-1]).sum()]


@pytest.mark.slow
def test_trajectories_tell_the_event():
    features = np.stack([over_time(scene(index)) for index in range(240)])
    assert ridge_accuracy(features, np.arange(240) % len(EVENTS), penalty=1.0) > 0.95


@pytest.mark.slow
def test_the_pixels_of_one_frame_tell_a_linear_classifier_neither_label():
    clean = WorldConfig(num_train=540, noise=0.0)
    specs = list(scene_specs(clean, "train"))
    middle = np.stack([draw(spec, clean)[clean.num_frames // 2] for spec in specs]).astype(np.float64)
    pooled = middle.reshape(len(specs), 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(specs), -1)
    events = np.array([EVENTS.index(spec.event) for spec in specs])
    assert ridge_accuracy(pooled, events, penalty=100.0) < 1.6 * CHANCE
    shapes = np.array([SHAPES.index(spec.appearance) for spec in specs])
    assert ridge_accuracy(pooled, shapes, penalty=100.0) < 2.5 / len(SHAPES)
