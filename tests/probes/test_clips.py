"""Segments, views and augmented clips of real videos, from the command line's function to a probe that classifies."""

import av
import numpy as np
import pytest
import torch

from tests.probes.verbs import classify, probe
from vjepa.commands.app import main
from vjepa.data.manifests.reader import read_manifest
from vjepa.features import ClipSpec
from vjepa.features.tokens import tokens_of
from vjepa.models import VideoEncoder
from vjepa.models.files import save_folder
from vjepa.probes import (
    LabelledTokens,
    ProbeError,
    ProbeSettings,
    eval_clips,
    fit_probe,
    random_init_like,
    training_clips,
    view_tokens,
)
from vjepa.probes.files import open_probe
from vjepa.probes.fitting.splits import clips_of, first_views, held_out_videos, labelled_clips

QUICK = ProbeSettings(lr=(3e-3,), num_steps=60)


def write_early(path, brightness, seed):
    """24 frames of 32 x 64, of which only the first 7 tell bright from dark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 20, (24, 32, 64, 3))
    noise[:7] += brightness - 128
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in (128 + noise).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, count in (("train", 16), ("val", 8)):
        rows = ["path,label"]
        for i in range(count):
            label = ("bright", "dark")[i % 2]
            write_early(folder / name / f"{i}.mp4", {"bright": 200, "dark": 60}[label], 50 * len(name) + i)
            rows.append(f"{name}/{i}.mp4,{label}")
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    save_folder(folder / "encoder", encoder_of())
    return folder


def encoder_of() -> VideoEncoder:
    model = VideoEncoder(img_size=32, patch_size=16, num_frames=4, embed_dim=24, depth=1, num_heads=2)
    return random_init_like(model, seed=0)


def run(place, out, **options):
    files = {name: str(place / f"{name}.csv") for name in ("train", "val")}
    given = {"grid": QUICK, "device": "cpu", "random_init": False, **options}
    flags = {"encoder": str(place / "encoder"), "out": out, **files, **given}
    return probe(**flags).figures


def test_a_label_at_the_beginning_needs_segments(place, tmp_path):
    assert run(place, tmp_path / "middle")["top1"] < 0.9
    assert run(place, tmp_path / "three", segments=3, views=3)["top1"] == 1.0
    _, card = open_probe(tmp_path / "three")
    assert (card.clip.segments, card.clip.views) == (3, 3)
    videos = [str(place / "val" / f"{i}.mp4") for i in range(4)]
    found = classify(probe=tmp_path / "three", videos=videos, device="cpu").figures["predictions"]
    assert [found[video][0]["label"] for video in videos] == ["bright", "dark"] * 2
    assert sum(x["probability"] for x in found[videos[0]]) == pytest.approx(1)


def test_augmented_clips_train_and_plain_ones_choose(place, tmp_path):
    augmented = run(place, tmp_path / "augmented", segments=3, augment=1, seed=1)
    plain = run(place, tmp_path / "plain", segments=3, seed=1)
    assert augmented["num_train"] == plain["num_train"] == 16 and augmented["top1"] >= 0.75
    assert augmented["history"] != plain["history"]


@torch.no_grad()
def test_features_of_views_and_segments_are_those_of_their_clips(place):
    manifest, model = read_manifest(place / "val.csv"), encoder_of()
    spec = ClipSpec.for_encoder(model, segments=2, views=3)
    clips = eval_clips(manifest, spec)
    features = tokens_of(model, clips, spec, batch_size=13)
    video = clips[1].video  # (3, 3 views * 2 segments * 4 frames, 32, 32)
    assert video.shape == (3, 24, 32, 32) and features.tokens.shape == (8, 3 * 2 * 8, 24)
    alone = view_tokens(model, video[None, None, None, :, 12:16])[0, 0, 0]  # view 1, segment 1
    torch.testing.assert_close(features.tokens[1, 24:32].float(), alone, atol=2e-3, rtol=2e-3)
    whole = eval_clips(manifest, ClipSpec.for_encoder(model))[1].video
    assert not torch.equal(whole, video[:, :4])


def test_random_views_follow_the_plain_ones(place):
    manifest, model = read_manifest(place / "train.csv"), encoder_of()
    spec = ClipSpec.for_encoder(model)
    drawn, other = (training_clips(manifest, spec, augment=2, seed=seed) for seed in (4, 5))
    clips, plain = training_clips(manifest, spec, augment=2, seed=4), training_clips(manifest, spec)
    assert len(clips) == 48 and torch.equal(clips[5].video, plain[5].video)
    first, second = clips[16 + 5], clips[32 + 5]
    assert first.index == second.index == 5 and not torch.equal(first.video, second.video)
    assert torch.equal(first.video, drawn[16 + 5].video)
    assert not torch.equal(first.video, other[21].video)
    features = tokens_of(model, clips, spec, batch_size=8)
    assert features.index.tolist() == list(range(16)) * 3
    with pytest.raises(ProbeError, match="0 or more"):
        training_clips(manifest, spec, augment=-1)


def test_clips_of_a_video_are_never_on_both_sides():
    videos = torch.arange(20).repeat(3)
    labels = (torch.arange(20) % 2).repeat(3)
    generator = torch.Generator().manual_seed(0)
    rows, held = held_out_videos(labels, (), videos, generator)
    assert len(rows) == 48 and len(held) == 4 and max(held.tolist()) < 20
    assert not set(videos[rows].tolist()) & set(videos[held].tolist())
    groups = [f"g{i // 4}" for i in range(20)] * 3
    rows, held = held_out_videos(labels, groups, videos, generator)
    assert len({groups[i] for i in held.tolist()}) == 1 and len(rows) == 48
    assert first_views(torch.tensor([3, 3, 1, 3, 1])).tolist() == [0, 2]
    assert clips_of(torch.tensor([2]), torch.tensor([3, 3, 1, 3, 1])).tolist() == [2, 4]
    few = labelled_clips(torch.where(videos == 3, -1, labels), videos, 2, generator)
    assert len(few) == 12 and len(videos[few].unique()) == 4 and 3 not in videos[few].tolist()


def test_copies_do_not_inflate_the_held_out_accuracy():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(40, 4, 16, generator=generator).repeat(4, 1, 1)
    labels, videos = (torch.arange(40) % 2).repeat(4), torch.arange(40).repeat(4)
    val = LabelledTokens(tokens[:40], labels[:40])
    by_video, by_clip = (
        fit_probe("attentive", LabelledTokens(tokens, labels, videos=v), val, num_classes=2, settings=QUICK)
        for v in (videos, None)
    )
    assert by_video.num_train == 40 and by_clip.num_train == 160
    assert by_video.history[-1].held_out_accuracy < 0.8 < by_clip.history[-1].held_out_accuracy


def test_options_out_of_range_end_the_command_with_advice(place, tmp_path, capsys):
    argv = ["probe", "--encoder", str(place / "encoder"), "--out", str(tmp_path)]
    argv += ["--train", str(place / "train.csv"), "--val", str(place / "val.csv")]
    for flag, value, advice in (("segments", 0, "at least 1"), ("augment", -1, "0 or more")):
        assert main([*argv, f"--{flag}", str(value)]) == 2
        assert advice in capsys.readouterr().err
