"""Training views of probes, of videos and of images: what all of them promise, and what each does."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from timm.data import create_transform
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from tests.data.transforms.test_auto_augment import as_frames, picture
from tests.videos import write_manifest
from vjepa.data import (
    ClipSampler,
    ImageEvalTransform,
    ImageTrainTransform,
    ProbeTrainTransform,
    VideoClips,
    VideoDataModule,
    collate,
    read_manifest,
)
from vjepa.data.transforms.augment import erase_box
from vjepa.data.transforms.fixed_point import Box
from vjepa.data.transforms.images import resize_image
from vjepa.data.transforms.video import IMAGENET_MEAN, IMAGENET_STD, EvalTransform, TrainTransform, normalise

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
PROBE_IMAGES = {
    "scale": (0.08, 1.0), "flip": 0.5, "interpolation": "bicubic", "auto_augment": "original", "erasing": 0.25
}  # fmt: skip
VIDEO = {
    "probe": lambda **o: ProbeTrainTransform(**o),
    "probe_no_noise": lambda **o: ProbeTrainTransform(flip=0.5, erasing=0.0, **o),
    "original": lambda **o: ProbeTrainTransform(auto_augment="original", **o),
    "pretrain": lambda **o: TrainTransform(**o),
}
IMAGE = {
    "ijepa": lambda **o: ImageTrainTransform(**o),
    "probe": lambda **o: ImageTrainTransform(**PROBE_IMAGES, **o),
    "eval": lambda **o: ImageEvalTransform(**o),
}
SHAPES = [(8, 600), (600, 8), (3, 5), (40, 52)]


@pytest.mark.parametrize("make", VIDEO.values(), ids=VIDEO)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_frames", [1, 3])
def test_any_clip_becomes_the_size_and_the_same_draws_the_same_view(make, shape, num_frames):
    frames = torch.randint(0, 256, (num_frames, 3, *shape), dtype=torch.uint8)
    before = frames.clone()
    transform = pickle.loads(pickle.dumps(make(size=(16, 24))))
    views = [transform(frames, np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3)]
    assert views[0].shape == (3, num_frames, 16, 24) and views[0].dtype == torch.float32
    assert views[0].isfinite().all() and torch.equal(views[0], views[1])
    assert any(not torch.equal(views[0], view) for view in views[2:])
    assert torch.equal(frames, before)
    assert transform.centred()(frames, np.random.default_rng(0)).shape == views[0].shape


@pytest.mark.parametrize("make", IMAGE.values(), ids=IMAGE)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_image_becomes_a_clip_that_repeats_it(make, shape):
    image = torch.randint(0, 256, (1, 3, *shape), dtype=torch.uint8)
    transform = pickle.loads(pickle.dumps(make(size=(16, 24), num_frames=4)))
    for seed in range(6):
        clip = transform(image, np.random.default_rng(seed))
        assert clip.shape == (3, 4, 16, 24) and clip.is_contiguous()
        assert (clip == clip[:, :1]).all()
        assert torch.equal(clip, transform(image, np.random.default_rng(seed)))
    with pytest.raises(ValueError, match="Set the sampler's num_frames to 1"):
        transform(image.expand(2, -1, -1, -1), np.random.default_rng(0))


def test_all_frames_of_a_clip_get_the_same_view():
    frames = as_frames(*[picture()] * 4)
    for seed in range(30):
        clip = ProbeTrainTransform(size=16, flip=0.5, erasing=0.0)(frames, np.random.default_rng(seed))
        assert (clip == clip[:, :1]).all()


def test_without_augmentation_it_is_the_pretraining_crop():
    frames = as_frames(picture(seed=0), picture(seed=1))
    plain = ProbeTrainTransform(size=20, auto_augment=None, erasing=0.0, flip=0.5)
    same = TrainTransform(size=20, scale=plain.scale, ratio=plain.ratio)
    for seed in range(8):
        got, want = (t(frames, np.random.default_rng(seed)) for t in (plain, same))
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_the_published_order_of_normalisation_and_crop_makes_no_difference():
    frames = as_frames(picture())
    got = ProbeTrainTransform(size=24, auto_augment=None, erasing=0.0)(frames, np.random.default_rng(2))
    from vjepa.data.transforms.video import random_resized_crop_box

    top, left, height, width = random_resized_crop_box(
        40, 52, (0.08, 1.0), (0.75, 4 / 3), np.random.default_rng(2)
    )
    first = normalise(frames.float(), IMAGENET_MEAN, IMAGENET_STD)[
        :, :, top : top + height, left : left + width
    ]
    want = torch.nn.functional.interpolate(first, size=(24, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)


def test_every_option_changes_the_view():
    frames, rng = as_frames(picture(seed=0), picture(seed=1)), np.random.default_rng
    base = {"size": 16, "erasing": 0.0, "auto_augment": None}
    usual = ProbeTrainTransform(**base)(frames, rng(0))
    for option in (
        {"scale": (1.0, 1.0)}, {"ratio": (2.0, 2.0)}, {"flip": 1.0}, {"erasing": 1.0}, PLAIN,
        {"auto_augment": "rand-m9-n15-p1-inc1"}, {"size": 17},
    ):  # fmt: skip
        got = ProbeTrainTransform(**base | option)(frames, rng(0))
        assert got.shape != usual.shape or not torch.equal(got, usual), option
    plain = ImageTrainTransform(size=16)(frames[:1], rng(0))
    for option in (
        {"scale": (1.0, 1.0)}, {"ratio": (2.0, 2.0)}, {"flip": 1.0}, {"erasing": 1.0}, PLAIN, {"num_frames": 2},
        {"auto_augment": "rand-m9-n15-p1-inc1"}, {"size": 17}, {"interpolation": "bicubic"},
    ):  # fmt: skip
        got = ImageTrainTransform(**{"size": 16} | option)(frames[:1], rng(0))
        assert got.shape != plain.shape or not torch.equal(got, plain), option
    assert ProbeTrainTransform(**PLAIN, size=16).centred()(frames).max() <= 1


def test_erased_boxes_have_the_published_size_and_frequency():
    areas, aspects, erased = [], [], 0
    for seed in range(1200):
        video = torch.full((3, 2, 60, 80), 100.0)
        erase_box(video, 0.25, np.random.default_rng(seed))
        rows, columns = (video[0, 0] != 100).any(1).sum().item(), (video[0, 0] != 100).any(0).sum().item()
        if rows:
            erased += 1
            areas.append(rows * columns / 4800)
            aspects.append(rows / columns)
            hole = video[:, :, (video[0, 0] != 100).any(1)][..., (video[0, 0] != 100).any(0)]
            assert (hole != 100).all() and not torch.equal(hole[:, 0], hole[:, 1])
            assert abs(hole.mean()) < 0.5 and 0.7 < hole.std() < 1.3
    assert 0.2 < erased / 1200 < 0.3
    assert 0.015 < min(areas) < 0.03 and 0.3 < max(areas) < 0.35
    assert 0.28 < min(aspects) < 0.4 and 2.5 < max(aspects) < 3.6


def test_draws_out_of_range_are_refused():
    for bad in ({"scale": (0.5, 0.3)}, {"ratio": (0.0, 1.0)}, {"flip": 1.5}, {"erasing": -0.1}):
        for make in (ProbeTrainTransform, ImageTrainTransform):
            with pytest.raises(ValueError, match="scale at most 1"):
                make(**bad)
    with pytest.raises(ValueError, match="at least 1 pixel and 1 frame"):
        ImageEvalTransform(num_frames=0)


@pytest.mark.parametrize("shape", [(40, 52), (70, 30), (33, 33), (300, 200)])
def test_image_test_view_is_torchvisions(shape):
    image = picture(*shape)
    theirs = v2.Compose(
        [v2.Resize(int(32 * 256 / 224)), v2.CenterCrop(32), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
         v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )(Image.fromarray(image))  # fmt: skip
    got = ImageEvalTransform(size=32)(as_frames(image))[:, 0]
    torch.testing.assert_close(got, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_image_crops_are_torchvisions_with_antialias(interpolation):
    image, box = picture(), Box(3, 5, 31, 40)
    mode = v2.InterpolationMode[interpolation.upper()]
    theirs = v2.functional.resized_crop(Image.fromarray(image), *box, size=[16, 12], interpolation=mode)
    got = resize_image(as_frames(image)[0], box, (16, 12), interpolation)
    assert np.array_equal(got.permute(1, 2, 0).numpy(), np.asarray(theirs))


def test_image_probe_view_has_the_statistics_of_timms():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = create_transform(
            16,
            is_training=True,
            auto_augment="original",
            interpolation="bicubic",
            re_prob=0.25,
            re_mode="pixel",
        )
    image = picture(60, 60)
    torch.manual_seed(0)
    expected = torch.stack([theirs(Image.fromarray(image)) for _ in range(400)])
    ours = ImageTrainTransform(size=16, **PROBE_IMAGES)
    got = torch.stack([ours(as_frames(image), np.random.default_rng(s))[:, 0] for s in range(400)])
    assert abs(got.mean() - expected.mean()) < 0.08 and abs(got.std() - expected.std()) < 0.08


@pytest.mark.parametrize(
    ("given", "kind", "size"),
    [
        ("{size: 20, flip: 0.0}", TrainTransform, (20, 20)),
        ("{class_path: vjepa.data.ProbeTrainTransform, init_args: {size: 24, auto_augment: null}}", ProbeTrainTransform,
         (24, 24)),
        ("{class_path: vjepa.data.ImageTrainTransform, init_args: {size: [16, 24]}}", ImageTrainTransform, (16, 24)),
    ],
)  # fmt: skip
def test_a_recipe_names_the_transform(given, kind, size):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(VideoDataModule, "data")
    data = parser.instantiate(parser.parse_args([f"--data.transform={given}"])).data
    assert type(data.transform) is kind and data.transform.centred().size == size


def test_works_in_a_loader_worker(tmp_path):
    manifest = read_manifest(str(write_manifest(tmp_path, 4, num_frames=6)))
    clips = VideoClips(
        manifest, sampler=ClipSampler(num_frames=3, fps=None), transform=ProbeTrainTransform(size=16)
    )
    alone, apart = (
        torch.cat([b.video for b in DataLoader(clips, batch_size=2, num_workers=n, collate_fn=collate)])
        for n in (0, 1)
    )
    assert torch.equal(alone, apart) and alone.shape == (4, 3, 3, 16, 16)
    assert isinstance(ProbeTrainTransform(size=16).centred(), EvalTransform)
