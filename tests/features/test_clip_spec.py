"""How a video becomes clips, as one value."""

import json

import numpy as np
import pytest
import torch

import vjepa
from tests.checkpoints.given import convert, tiny_encoder
from vjepa.checkpoints import save_folder
from vjepa.commands.extract import ClipFlags
from vjepa.data import ClipSampler, ImageEvalTransform, TrainTransform
from vjepa.data.transforms.views import SegmentSampler, ViewsTransform
from vjepa.features.clip_spec import ClipSpec, spec_of_features, spec_of_old_probe
from vjepa.features.errors import FeaturesError
from vjepa.features.windows import Windows
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.protocols import PROTOCOLS
from vjepa.probes.recipe import ClipChoice, resolve_recipe

TIMES = np.arange(100) / 10  # ten seconds


@pytest.mark.parametrize(
    "spec",
    [
        ClipSpec(),
        ClipSpec(num_frames=8, fps=4.0, segments=2, views=3, layers=(-4, -1)),
        ClipSpec(num_frames=4, frame_step=3, size=(32, 48), short_side=40, mean=(0.1, 0.2, 0.3)),
        ClipSpec(num_frames=4, windows=Windows(2.0, tail="align", short="repeat")),
        ClipSpec(num_frames=4, windows=Windows(2.0, stride=0.5)),
    ],
)
def test_a_file_holds_all_of_it(spec):
    again = ClipSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again.to_json() == spec.to_json()
    assert np.array_equal(again.frames(TIMES), spec.frames(TIMES))
    assert set(spec.to_json()) == set(ClipSpec().to_json())


def test_files_of_before_are_read():
    about = {
        "layers": [-1, 0],
        "preprocessing": {
            **{
                "num_frames": 4,
                "fps": None,
                "window": 2.0,
                "stride": 1.0,
                "size": [16, 24],
                "short_side": 16,
            },
            **{"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        },
    }
    windows = Windows(2.0, 1.0, tail="drop", short="refuse")
    assert spec_of_features(about) == ClipSpec(
        **{"num_frames": 4, "windows": windows, "size": (16, 24), "short_side": 16, "layers": (-1, 0)},
        **{"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)},
    )
    new = {"preprocessing": spec_of_features(about).to_json()}
    assert spec_of_features(new) == spec_of_features(about)
    card = {"kind": "linear", "num_frames": 8, "fps": 4.0, "segments": 2, "views": 3, "frame_step": None}
    card |= {"levels": [1, 3], "encoder_config": {"img_size": 32}}
    spec = spec_of_old_probe(card)
    assert spec == ClipSpec(
        num_frames=8, fps=4.0, segments=2, views=3, size=(32, 32), short_side=32, layers=(1, 3)
    )


def test_what_contradicts_itself_is_refused():
    with pytest.raises(FeaturesError, match="at least 1 of each"):
        ClipSpec(segments=0)
    with pytest.raises(ValueError, match="Set one of them to null"):
        ClipSpec(fps=4.0, frame_step=2)
    with pytest.raises(ValueError, match="all must be finite numbers above 0"):
        ClipSpec(num_frames=0)
    with pytest.raises(FeaturesError, match="Omit fps and frame_step"):
        ClipSpec(windows=Windows(2.0), fps=4.0)
    with pytest.raises(FeaturesError, match="Omit either"):
        ClipSpec(windows=Windows(2.0), views=3)
    with pytest.raises(FeaturesError, match="several views are square"):
        ClipSpec(size=(16, 24), views=3)
    with pytest.raises(ValueError, match="below size"):
        ClipSpec(short_side=8)
    with pytest.raises(FeaturesError, match="fps nan: give a number"):
        ClipSpec(fps=float("nan"))
    with pytest.raises(FeaturesError, match="none twice"):
        ClipSpec(layers=(1, 1))
    with pytest.raises(FeaturesError, match="clips with colour: the keys are num_frames, fps"):
        ClipSpec.from_json({"colour": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"segments": 10**9},
        {"views": 10**9},
        {"num_frames": 10**9},
        {"size": [10**9, 16]},
        {"window": 1e-9},
        {"window": 2.0, "stride": 1e-9},
    ],
)
def test_numbers_that_would_never_end_are_refused(wrong):
    with pytest.raises(FeaturesError, match="at most|at least"):
        ClipSpec.from_json(wrong)


def test_an_encoder_gives_what_is_not_said():
    encoder = vjepa.VideoEncoder(
        img_size=(16, 24), patch_size=8, num_frames=4, embed_dim=24, depth=1, num_heads=2
    )
    spec = ClipSpec.for_encoder(encoder)
    assert (spec.num_frames, spec.size, spec.short_side) == (4, (16, 24), 16)
    assert ClipSpec.for_encoder(encoder, fps=5.0, windows=Windows(2.0)).num_frames == 10
    assert ClipSpec.for_encoder(encoder, windows=Windows(2.0)).num_frames == 4
    with pytest.raises(FeaturesError, match="Omit fps or num_frames"):
        ClipSpec.for_encoder(encoder, fps=5.0, num_frames=3, windows=Windows(2.0))


def test_it_makes_the_sampler_and_the_transform():
    spec = ClipSpec(num_frames=4, fps=2.0, segments=2, views=3, size=(16, 16), mean=(0.1, 0.2, 0.3))
    assert isinstance(spec.sampler(), SegmentSampler) and isinstance(spec.transform(), ViewsTransform)
    video = torch.zeros(8, 3, 20, 30, dtype=torch.uint8)
    assert spec.transform()(video).shape == (3, 24, 16, 16) and spec.transform().mean == (0.1, 0.2, 0.3)
    assert spec.one_view().transform()(video).shape == (3, 8, 16, 16)
    assert spec.frames(TIMES).shape == (1, 8)
    plain = ClipSpec(num_frames=4, fps=2.0)
    assert plain.frames(TIMES)[0].tolist() == plain.sampler().sample(TIMES, np.random.default_rng(0)).tolist()
    random = plain.sampler("random")
    assert len({tuple(random.sample(TIMES, np.random.default_rng(i))) for i in range(5)}) > 1


def test_the_clips_of_the_run_are_the_default_and_another_flag_is_said(tmp_path, caplog):
    encoder = tiny_encoder()
    sampler = ClipSampler(num_frames=2, fps=8.0)
    transform = TrainTransform(size=(24, 32), mean=(0.1, 0.2, 0.3)).centred()
    encoder.trained_clips = ClipSpec.of_training(sampler, transform).to_json()
    save_folder(tmp_path / "export", encoder)
    convert(src=str(tmp_path / "export"), dst=tmp_path / "hf", to="hf")
    convert(src=str(tmp_path / "hf"), dst=tmp_path / "native", to="native")
    for place in ("export", "hf", "native"):
        opened = vjepa.load_encoder(tmp_path / place)
        for spec in (ClipFlags().spec(opened, (-1,)), probe_spec(opened)):
            assert (spec.num_frames, spec.fps, spec.size, spec.short_side) == (2, 8.0, (24, 32), 24)
            assert spec.mean == (0.1, 0.2, 0.3)
    caplog.clear()
    ClipFlags(fps=8.0).spec(opened, (-1,))
    assert not caplog.messages
    assert probe_spec(opened, num_frames=4, fps=2.0).fps == 2.0
    assert caplog.messages == ["clips of 4 frames at 2 fps; the encoder was trained on 2 frames at 8 fps"]
    assert (
        PROTOCOLS["ssv2"].spec(opened, views=1).frame_step is not None
    )  # a published protocol stays as it is
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    config["trained_clips"]["size"] = 7
    (tmp_path / "export" / "config.json").write_text(json.dumps(config))
    with pytest.raises(FeaturesError, match="size of the clips is 7: not a number"):
        ClipSpec.for_encoder(vjepa.load_encoder(tmp_path / "export"))


def probe_spec(encoder, **choice):
    """How `vjepa probe` cuts clips with these flags."""
    return resolve_recipe(
        None, encoder, ClipChoice(**choice), ProbeSettings(), num_classes=2, num_videos=4
    ).spec


def test_images_have_no_clips_to_note():
    assert ClipSpec.of_training(ClipSampler(num_frames=1), ImageEvalTransform()) is None
