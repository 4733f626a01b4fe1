"""Changes of colour and shape against timm, whose recipes are the published ones."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_augment

from vjepa.data.transforms.auto_augment import (
    CHANGES,
    IMAGENET_PAIRS,
    INCREASING,
    ORIGINAL,
    AutoAugment,
    Operation,
    RandAugment,
    change_frames,
    policy_named,
)

PUBLISHED = "rand-m7-n4-mstd0.5-inc1"
FILL = (124, 116, 104)
INCREASING_NAMES = {"posterize": "PosterizeIncreasing", "solarize": "SolarizeIncreasing"} | {
    name: f"{name.capitalize()}Increasing" for name in ("color", "contrast", "brightness", "sharpness")
}
ORIGINAL_NAMES = {
    "posterize": "PosterizeOriginal",
    "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
}


def timm_name(name: str, names: dict[str, str]) -> str:
    return names.get(name) or "".join(part.capitalize() for part in name.split("_"))


def picture(height=40, width=52, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = 100 + 60 * np.sin(rows / 5 + seed)[..., None] + 40 * np.cos(columns / 7)[..., None]
    return np.clip(smooth + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def as_frames(*pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


IN_PAIRS = {step[0] for pair in IMAGENET_PAIRS for step in pair}


@pytest.mark.parametrize(
    ("name", "scale", "magnitude"),
    [
        (name, scale, magnitude)
        for scale, names in (("increasing", CHANGES), ("original", IN_PAIRS))
        for name in sorted(names)
        for magnitude in (0.0, 2.6, 5.0, 7.0, 10.0)
        if (name, scale, magnitude) != ("posterize", "increasing", 10.0)  # 0 bits, which Pillow refuses timm
    ],
)
def test_every_change_is_timms_to_the_bit(name, scale, magnitude):
    ours, names = (
        (INCREASING, INCREASING_NAMES | {k: v for k, v in ORIGINAL_NAMES.items() if k != "posterize"})
        if scale == "increasing"
        else (ORIGINAL, ORIGINAL_NAMES)
    )
    hparams = {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    theirs = timm_augment.AugmentOp(timm_name(name, names), prob=1.0, magnitude=magnitude, hparams=hparams)
    expected = {}
    for seed in range(6):  # timm draws the sign from Python's random state
        random.seed(seed)
        expected[np.asarray(theirs(Image.fromarray(picture()))).tobytes()] = True
    got = {
        change_frames(as_frames(picture()), [Operation(name, ours[name](magnitude, sign))], FILL)
        .permute(0, 2, 3, 1)
        .numpy()
        .tobytes()
        for sign in (-1, 1)
    }
    assert got == set(expected)


def test_the_15_changes_and_the_25_pairs_are_timms():
    names = INCREASING_NAMES | {k: v for k, v in ORIGINAL_NAMES.items() if k != "posterize"}
    assert [timm_name(name, names) for name in INCREASING] == timm_augment._RAND_INCREASING_TRANSFORMS
    theirs = timm_augment.auto_augment_policy_original({})
    assert [[(op.name, op.prob, op.magnitude) for op in pair] for pair in theirs] == [
        [(timm_name(name, ORIGINAL_NAMES), p, m) for name, p, m in pair] for pair in IMAGENET_PAIRS
    ]


def test_draws_have_the_published_distribution():
    rng = np.random.default_rng(0)
    drawn = [policy_named(PUBLISHED).draw(rng) for _ in range(6000)]
    counts = Counter(len(operations) for operations in drawn)
    for number, share in enumerate((1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)):
        assert counts[number] / 6000 == pytest.approx(share, abs=0.02)
    names = Counter(operation.name for operations in drawn for operation in operations)
    assert set(names) == set(INCREASING) and max(names.values()) < 1.25 * min(names.values())
    angles = np.array([o.strength for operations in drawn for o in operations if o.name == "rotate"])
    assert np.abs(angles).mean() == pytest.approx(21, abs=0.2)
    assert np.abs(angles).std() == pytest.approx(1.5, abs=0.2) and 0.4 < (angles > 0).mean() < 0.6
    pairs = Counter(len(AutoAugment().draw(rng)) for _ in range(2000))
    assert set(pairs) == {0, 1, 2}


def test_numbers_of_the_string_reach_the_policy():
    got = policy_named("rand-m9-n3-p1-mstd1-inc1")
    assert got == RandAugment(num_ops=3, magnitude=9.0, magnitude_std=1.0, probability=1.0)
    assert len(got.draw(np.random.default_rng(0))) == 3
    assert policy_named("rand-inc1") == RandAugment()
    still = policy_named("rand-m10-n40-p1-inc1").draw(np.random.default_rng(1))
    assert {abs(o.strength) for o in still if o.name == "rotate"} <= {30.0}


@pytest.mark.parametrize(
    "text", ["", "rand", "rand-m7", "rand-m11-inc1", "rand-n1.5-inc1", "rand-x3-inc1", "augmix", "rand-m7-m8-inc1",
             "rand-p2-inc1", "rand-inc0"]
)  # fmt: skip
def test_an_unknown_policy_is_refused(text):
    with pytest.raises(ValueError, match="give 'original', or 'rand-m7-n4-mstd0.5-inc1'"):
        policy_named(text)


def test_frames_are_changed_alike_each_as_itself():
    operations = [Operation("rotate", 12.0), Operation("solarize", 77), Operation("sharpness", 1.6)]
    frames = as_frames(picture(seed=0), picture(seed=1), picture(seed=0))
    got = change_frames(frames, operations)
    assert torch.equal(got[0], got[2]) and not torch.equal(got[0], got[1])
    assert torch.equal(got[1:2], change_frames(frames[1:2], operations))
    assert change_frames(frames, []) is frames
    moved = change_frames(frames, [Operation("translate_x", 23 / 52)])
    assert (moved[:, :, :, -10:] == 128).all() and torch.equal(moved[:, :, 5, 0], frames[:, :, 5, 23])


def test_no_global_random_state_is_used_or_moved():
    drawn = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        states = np.random.get_state()[1].tolist(), torch.get_rng_state()
        drawn.append([policy_named(PUBLISHED).draw(np.random.default_rng(s)) for s in range(20)])
        assert np.random.get_state()[1].tolist() == states[0] and torch.equal(
            torch.get_rng_state(), states[1]
        )
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("shape", [(1, 1), (3, 600), (600, 3)])
def test_any_frame_can_be_changed(shape):
    frames = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
    for name in CHANGES:
        assert change_frames(frames, [Operation(name, INCREASING[name](7.3, -1))]).shape == frames.shape
