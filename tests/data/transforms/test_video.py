import math
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import reference_case
from vjepa.data.transforms.fixed_point import Box, resize_fixed_point
from vjepa.data.transforms.video import (
    EvalTransform,
    TrainTransform,
    covering_size,
    crop_and_resize,
    normalise,
    random_resized_crop_box,
)


class PythonDraws:
    """The published code's source of crop draws: Python's `random`."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def uniform(self, low, high):
        return self.random.uniform(low, high)

    def integers(self, low, high):
        return self.random.randint(low, high - 1)


@pytest.fixture
def reference():
    return reference_case("eval_transforms").tensors


def test_single_view_matches_the_published_evaluation(reference):
    frames = reference["in.frames_uint8"].permute(0, 3, 1, 2)
    got = EvalTransform(size=32)(frames)
    torch.testing.assert_close(got, reference["out.single_view_crop32"], atol=1e-4, rtol=1e-4)


def test_training_view_matches_the_published_one(reference):
    frames = reference["in.frames_uint8"].permute(0, 3, 1, 2)
    box = random_resized_crop_box(60, 90, (0.3, 1.0), (0.75, 1.35), PythonDraws(4))
    resized = crop_and_resize(frames, box, (32, 32))
    if np.random.RandomState(4).uniform() < 0.5:
        resized = resized.flip(-1)
    got = normalise(resized, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(got, reference["out.pretrain_seed4"], atol=1e-4, rtol=1e-4)


def test_a_crop_larger_than_the_frame_falls_back_as_published(reference):
    frames = reference["in.frames_uint8"].permute(0, 3, 1, 2)
    box = random_resized_crop_box(60, 90, (1.777, 1.777), (0.75, 1.35), PythonDraws(4))
    got = normalise(crop_and_resize(frames, box, (32, 32)), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(got, reference["out.droid_fallback"], atol=1e-4, rtol=1e-4)


@given(h=st.integers(2, 200), w=st.integers(2, 200), seed=st.integers(0, 1000))
def test_crop_box_is_inside(h, w, seed):
    box = random_resized_crop_box(h, w, (0.3, 1.0), (0.75, 1.35), np.random.default_rng(seed))
    assert box.top >= 0 and box.left >= 0 and box.height > 0 and box.width > 0
    assert box.top + box.height <= h and box.left + box.width <= w


def test_crop_falls_back_to_the_centre():
    box = random_resized_crop_box(10, 400, (1.0, 1.0), (0.75, 1.35), np.random.default_rng(0))
    assert box == Box(top=0, left=193, height=10, width=14)
    assert random_resized_crop_box(400, 10, (1.0, 1.0), (0.75, 1.35), np.random.default_rng(0)).height == 13


def test_crop_areas_and_ratios_are_spread():
    boxes = [
        random_resized_crop_box(200, 200, (0.3, 1.0), (0.75, 1.35), np.random.default_rng(s))
        for s in range(2000)
    ]
    areas = np.array([b.height * b.width for b in boxes]) / 200**2
    aspects = np.log([b.width / b.height for b in boxes])
    assert 0.29 < areas.min() < 0.31 and areas.max() > 0.95
    assert math.log(0.74) < aspects.min() < math.log(0.77) and math.log(1.32) < aspects.max() < math.log(1.37)


def test_flip_is_a_switch_and_one_for_the_clip():
    frames = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).reshape(2, 3, 8, 8)
    whole = dict(size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    never, always = (TrainTransform(**whole, flip=p)(frames, np.random.default_rng(0)) for p in (0.0, 1.0))
    torch.testing.assert_close(never.flip(-1), always)
    half = TrainTransform(**whole)
    flipped = [not torch.equal(half(frames, np.random.default_rng(s)), never) for s in range(200)]
    assert 70 < sum(flipped) < 130


@given(height=st.integers(8, 2200), width=st.integers(8, 2200))
def test_short_side_is_exact(height, width):
    got = covering_size(height, width, 256, (224, 224))
    assert min(got) == 256 and max(got) == int(256 * max(height, width) / min(height, width))


def test_normalisation_and_layout():
    frames = torch.zeros(5, 3, 4, 6, dtype=torch.uint8)
    frames[:, 0], frames[:, 2] = 255, 51
    got = EvalTransform(size=(4, 6), short_side=4)(frames)
    assert got.shape == (3, 5, 4, 6)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(got[:, 0, 0, 0], torch.tensor(expected))
    plain = TrainTransform(size=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))(
        frames, np.random.default_rng(0)
    )
    torch.testing.assert_close(plain[:, 0, 0, 0], torch.tensor([1.0, 0.0, 0.2]))


def test_short_side_decides_what_is_cut_off():
    frames = torch.arange(64, dtype=torch.uint8).repeat(64, 1).expand(1, 3, 64, 64)
    kept = EvalTransform(size=64, short_side=64, mean=(0.0,) * 3, std=(1.0,) * 3)(frames)
    assert torch.equal((kept * 255).round().to(torch.uint8)[:, 0], frames[0])
    cut = EvalTransform(size=64, mean=(0.0,) * 3, std=(1.0,) * 3)(frames)
    assert cut.min() * 255 > 2  # the border is gone
    with pytest.raises(ValueError, match="Give at least 64"):
        EvalTransform(size=64, short_side=32)
    EvalTransform(size=64, short_side=64)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (30, 200), (64, 64)])
@pytest.mark.parametrize("size", [32, (32, 64), (64, 32)])
def test_any_clip_becomes_the_size(shape, size):
    frames = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
    expected = (3, 2, *((size, size) if isinstance(size, int) else size))
    assert EvalTransform(size=size)(frames).shape == expected
    assert TrainTransform(size=size)(frames, np.random.default_rng(0)).shape == expected


def test_fixed_point_resize_is_close_to_bilinear():
    frames = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    exact = torch.nn.functional.interpolate(
        frames.float(), size=(28, 35), mode="bilinear", align_corners=False
    )
    assert (resize_fixed_point(frames, (28, 35)).float() - exact).abs().max() <= 1


@given(
    shape=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    share=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_part_of_a_resized_frame_is_that_part(shape, size, share):
    frames = torch.randint(0, 256, (2, *shape, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    top, left = int(share[0] * (size[0] - 1)), int(share[1] * (size[1] - 1))
    cut = Box(top, left, 1 + int(share[2] * (size[0] - top - 1)), 1 + int(share[3] * (size[1] - left - 1)))
    whole = resize_fixed_point(frames, size)
    part = resize_fixed_point(frames, size, cut)
    assert whole.shape[-2:] == size
    assert torch.equal(part, whole[:, :, top : top + cut.height, left : left + cut.width])
    assert torch.equal(whole, resize_fixed_point(frames.contiguous(), size))


def test_evaluation_in_bytes_is_the_evaluation():
    frames = torch.randint(0, 256, (4, 3, 50, 70), dtype=torch.uint8)
    transform = EvalTransform(size=(24, 32))
    pixels = transform.pixels(frames)
    assert pixels.dtype == torch.uint8 and pixels.is_contiguous()
    assert torch.equal(transform.pixel_scale.normalised(pixels), transform(frames))


def test_options_out_of_range_are_refused():
    for bad in (
        dict(scale=(0.5, 0.3)),
        dict(scale=(0.5, 2.0)),
        dict(flip=1.5),
        dict(ratio=(0.0, 1.0)),
        dict(size=0),
    ):
        with pytest.raises(ValueError):
            TrainTransform(**bad)


def test_a_small_clip_is_cheap():
    frames = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)
    transform = EvalTransform(size=64, short_side=64)
    transform(frames)
    began = time.perf_counter()
    for _ in range(20):
        transform(frames)
    assert (time.perf_counter() - began) / 20 < 0.02


FLOAT_FRAMES = """
import numpy as np, torch
from vjepa.data import *

rng = np.random.default_rng(0)
video = (TrainTransform, EvalTransform, ViewsTransform, ProbeTrainTransform)
for made in (*video, ImageTrainTransform, ImageEvalTransform):
    frames = torch.rand(1, 3, 40, 40)
    for change in [made(size=16), *([made(size=16).pixels] if hasattr(made, "pixels") else [])]:
        try:
            change(frames, rng)
        except ValueError as error:
            assert "Convert frames of 0 to 1 with (255 * frames).round().to(torch.uint8)" in str(error)
            change((255 * frames).round().to(torch.uint8), rng)
        else:
            raise SystemExit(f"{made.__name__} takes float frames")
"""


@pytest.mark.slow
def test_float_frames_are_refused_by_every_transform():
    # in a process without the checks of shapes and types that the tests run with
    done = subprocess.run([sys.executable, "-c", FLOAT_FRAMES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
