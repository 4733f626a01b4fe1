from functools import partial

import numpy as np
import pytest

from vjepa.worlds.shapes import SHAPES, blob, hero_outline, rectangle

STEP = 0.11  # no multiple of a side, so that no whole row of pixels lies on an edge
LINE = np.arange(-30, 30, STEP, dtype=np.float32) + STEP / 2
U, V = (axis[None] for axis in np.meshgrid(LINE, LINE))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_the_area_asked_for_and_is_centred(shape):
    inside = hero_outline(shape, 12.0)(U, V) < 0
    assert inside.sum() * STEP**2 == pytest.approx(np.pi * 12.0**2, rel=0.02)
    # a shape off its centre would swing when it turns; the crescent's is moved by hand
    middle = np.array([U[inside].mean(), V[inside].mean()])
    assert np.hypot(*middle) < (2.5 if shape == "crescent" else 0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_falls_by_a_pixel_a_pixel_at_the_edge(shape):
    distance = hero_outline(shape, 12.0)(U, V)[0]
    slope = np.hypot(*np.gradient(distance, STEP))
    assert np.median(slope[np.abs(distance) < 0.5]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_drawn_beyond_the_reach_a_hero_is_given(shape):
    distance = hero_outline(shape, 12.0)(U, V)
    assert np.hypot(U, V)[distance < 0.5].max() < 2.0 * 12.0 + 1


def test_outlines_of_any_two_shapes_differ():
    inside = {shape: hero_outline(shape, 12.0)(U, V) < 0 for shape in SHAPES}
    for first in SHAPES:
        for second in set(SHAPES) - {first}:
            shared = (inside[first] & inside[second]).sum() / (inside[first] | inside[second]).sum()
            assert shared < 0.9, (first, second)


def test_a_rectangle_and_a_blob_end_where_they_should():
    inside = partial(rectangle, half_width=3.0, half_height=7.0)(U, V) < 0
    assert (np.abs(U[inside]).max(), np.abs(V[inside]).max()) == pytest.approx((3, 7), abs=STEP)
    inside = partial(blob, radius=6.0, lobes=3, depth=0.2)(U, V) < 0
    assert np.hypot(U, V)[inside].max() == pytest.approx(7.2, abs=2 * STEP)
    assert np.hypot(U, V)[~inside].min() == pytest.approx(4.8, abs=2 * STEP)
