"""Protocols as recipes, one's own folder in one command, and the page of a test."""

import json
from collections import Counter

import pytest
import torch

from tests.checkpoints.given import WIDTH, tiny_encoder, tiny_probe
from tests.probes.test_commands import write_clip
from tests.probes.verbs import probe
from vjepa.commands.app import main
from vjepa.data.manifests.rows import Manifest, ManifestRow
from vjepa.features import ClipSpec
from vjepa.models.files import save_folder
from vjepa.probes import (
    AttentiveProbe,
    LinearProbe,
    ProbeError,
    ProbeSettings,
    Standardize,
    StandardizedProbe,
)
from vjepa.probes.attention import attention_of, overlay
from vjepa.probes.classifier import Classifier, open_classifier
from vjepa.probes.fitting.splits import train_and_test_rows
from vjepa.probes.manifests import LabelledVideos
from vjepa.probes.page import clip_strips, write_page
from vjepa.probes.protocols import PROTOCOLS
from vjepa.probes.recipe import ClipChoice, resolve_recipe
from vjepa.types import TokenGrid

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of two class folders, and an encoder."""
    folder = tmp_path_factory.mktemp("recipes")
    for i in range(16):
        name = ("bright", "dark & dim")[i % 2]
        write_clip(folder / "clips" / name / f"{i}.mp4", (200, 60)[i % 2], i)
    save_folder(folder / "encoder", tiny_encoder(depth=1))
    return folder


def test_a_folder_of_ones_own_in_one_command(place, tmp_path):
    out, clips = tmp_path / "out", str(place / "clips")
    argv = ["probe", "--encoder", str(place / "encoder"), "--folder", clips, "--out", str(out)]
    assert (
        main([*argv, "--grid.num_steps=40", "--grid.lr=[3e-3]", "--report=true", "--random_init=false"]) == 0
    )
    result = json.loads((out / "result.json").read_text())
    assert (result["num_train"], result["num_val"]) == (12, 4)
    assert result["recipe"]["protocol"] is None and result["recipe"]["num_steps"] == 40
    page = (out / "report.html").read_text()
    assert "dark &amp; dim" in page and "dark & dim" not in page and "http" not in page
    wrong = round(result["num_val"] * (1 - result["top1"]))
    assert page.count("data:image/jpeg") == 2 * wrong  # frames and attention of each wrong clip


def test_what_is_missing_or_too_much_is_said(place):
    with pytest.raises(ProbeError, match="give --train and --val, or --folder"):
        LabelledVideos(train="a.csv").manifests(seed=0)
    with pytest.raises(ProbeError, match="give the folder alone"):
        LabelledVideos(train="a.csv", folder="b").manifests(seed=0)
    with pytest.raises(ProbeError, match="share between 0 and 1"):
        LabelledVideos(folder=str(place / "clips"), val_share=1.0).manifests(seed=0)


def test_the_split_is_stratified_seeded_and_keeps_groups_whole():
    labels = [0] * 40 + [1] * 20 + [2] * 4 + [-1]
    known, tested = train_and_test_rows(labels, [""] * 65, val_share=0.25, seed=0)
    assert Counter(labels[i] for i in tested) == {0: 10, 1: 5, 2: 1}
    assert sorted(known + tested) == list(range(64))
    assert train_and_test_rows(labels, [""] * 65, val_share=0.25, seed=0) == (known, tested)
    assert train_and_test_rows(labels, [""] * 65, val_share=0.25, seed=1) != (known, tested)
    groups = [f"g{i // 4}" for i in range(64)] + [""]
    known, tested = train_and_test_rows(labels, groups, val_share=0.25, seed=0)
    assert tested and not {groups[i] for i in known} & {groups[i] for i in tested}
    assert {labels[i] for i in known} == {0, 1, 2}  # the last class is one group: it stays to train on
    with pytest.raises(ProbeError, match="Give more videos"):
        train_and_test_rows([0, 1], ["", ""], val_share=0.5, seed=0)


def test_protocols_are_the_published_ones():
    ssv2, v1, diving = PROTOCOLS["ssv2"], PROTOCOLS["k400-v1"], PROTOCOLS["diving48"]
    assert (ssv2.num_frames, ssv2.segments, ssv2.views, ssv2.frame_step) == (16, 2, 3, 4)
    assert len(ssv2.lr) * len(ssv2.weight_decay) == 20 and ssv2.depth == 4
    assert (v1.depth, v1.lr, v1.weight_decay, v1.batch_size) == (1, (1e-3,), (0.01,), 256)
    assert (diving.epochs, diving.num_frames, diving.segments, diving.batch_size) == (100, 32, 4, 128)
    assert diving.layers(40) == (24, 29, 34, 39)
    settings = ssv2.settings(ProbeSettings(), num_videos=1000)
    assert settings.num_steps == 79 and settings.lr == ssv2.lr  # 20 epochs of 1000 in batches of 256
    own = ssv2.settings(ProbeSettings(lr=(1.0,), num_steps=5), num_videos=1000)
    assert (own.lr, own.num_steps, own.weight_decay) == ((1.0,), 5, ssv2.weight_decay)


def test_a_recipe_takes_what_is_given_over_the_protocol():
    encoder = tiny_encoder()
    sizes = {"num_classes": 174, "num_videos": 300}
    recipe = resolve_recipe("ssv2", encoder, ClipChoice(), ProbeSettings(), **sizes)
    cut = ("num_frames", "fps", "frame_step", "segments", "views")
    assert [getattr(recipe.spec, name) for name in cut] == [16, None, 4, 2, 3]
    assert recipe.stored["protocol"] == "ssv2" and recipe.stored["departures"]
    own = resolve_recipe("ssv2", encoder, ClipChoice(8, 4.0, 1, 1), ProbeSettings(), **sizes)
    assert [getattr(own.spec, name) for name in cut] == [8, 4.0, None, 1, 1]
    with pytest.raises(ProbeError, match="174 classes, the training manifest 2. Give a manifest"):
        resolve_recipe("ssv2", encoder, ClipChoice(), ProbeSettings(), num_classes=2, num_videos=3)


def test_a_protocol_reaches_probe_and_card(place, tmp_path, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "two", PROTOCOLS["ssv2"].__class__(2, 2, 3, num_frames=2, frame_step=2, lr=(1e-3,),
        weight_decay=(0.1,), depth=1))  # fmt: skip
    flags = {
        "encoder": str(place / "encoder"),
        "folder": str(place / "clips"),
        "out": tmp_path,
        "protocol": "two",
    }
    flags |= {"random_init": False, "device": "cpu", "grid": ProbeSettings(num_heads=2)}
    figures = probe(**flags).figures
    clip = json.loads((tmp_path / "config.json").read_text())["clip"]
    assert (clip["num_frames"], clip["frame_step"], clip["segments"], clip["views"]) == (2, 2, 2, 3)
    assert figures["chosen"]["num_heads"] == 2 and figures["recipe"]["frame_step"] == 2
    assert open_classifier(tmp_path).spec.frame_step == 2


@pytest.mark.parametrize("depth", [1, 4])
def test_attention_is_what_the_probe_reads_by(depth):
    head, tokens = tiny_probe(depth), torch.randn(2, 8, WIDTH)
    shares = attention_of(head, tokens)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))
    if depth == 1:
        one = AttentiveProbe(embed_dim=WIDTH, num_classes=2, num_heads=1)
        normed = torch.nn.functional.layer_norm(tokens, [WIDTH], eps=1e-5)
        mixed = attention_of(one, tokens)[:, None] @ normed
        expected = one.linear(one.pooler.pool(mixed)[:, 0])
        torch.testing.assert_close(one(tokens), expected, atol=1e-5, rtol=0)
    standardized = StandardizedProbe(Standardize(embed_dim=WIDTH), head)
    torch.testing.assert_close(attention_of(standardized, tokens), shares, atol=1e-5, rtol=0)
    assert attention_of(LinearProbe(embed_dim=WIDTH, num_classes=2), tokens) is None


def test_the_haze_lies_where_the_probe_looks():
    shares = torch.zeros(2 * 2 * 2)
    shares[5] = 1.0  # second tubelet, first row, second column
    hazy = overlay(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), shares, TokenGrid(t=2, h=2, w=2))
    assert hazy[0].max() == 0 and hazy[1, 0, 0, 7] == round(0.75 * 255) and hazy[1, 0, 7, 0] == 0


def classifier_of(names: tuple[str, ...], **clips) -> Classifier:
    encoder = tiny_encoder()
    spec = ClipSpec.for_encoder(encoder, num_frames=4, **clips)
    return Classifier(encoder=encoder, head=tiny_probe(), label_names=names, kind="test", spec=spec)


def test_strips_of_segments_views_and_levels(place):
    classifier = classifier_of(tuple("abcde"), segments=2, views=3, layers=(0, 1))
    clip = next((place / "clips" / "bright").iterdir())
    sample = classifier.clips(Manifest((ManifestRow(str(clip)),), (), "videos", "test"))[0]
    strips = clip_strips(classifier, sample.video)
    assert [tuple(s.shape) for s in strips] == [(3, 32, 4 * 32)] * 2  # 2 segments of 2 tubelets
    assert not torch.equal(*strips)


def test_names_and_paths_are_escaped_and_many_classes_become_pairs(place, tmp_path):
    rows = tuple(ManifestRow(str(p), label=3) for p in sorted((place / "clips" / "bright").iterdir()))
    rows = (*rows, ManifestRow(f"{EVIL}.mp4", label=1))
    manifest = Manifest(rows, (), "videos", "test")
    classifier = classifier_of((EVIL, EVIL, EVIL, "x & y", EVIL))
    page = write_page(tmp_path / "page.html", classifier, manifest, title=EVIL).read_text()
    assert EVIL not in page and "&lt;script&gt;" in page and "x &amp; y" in page
    assert len(page) < 5_000_000 and "of 8 clips" in page


def test_many_classes_become_pairs():
    from vjepa.probes.page import _confusion

    confusion = torch.zeros(50, 50, dtype=torch.int64)
    confusion[3, 4], confusion[7, 7] = 9, 5
    text = "".join(_confusion(confusion, [f"c{i}" for i in range(50)]))
    assert "c3" in text and "c4" in text and "c7" not in text


def test_unlabelled_test_videos_are_named_before_any_work(tmp_path):
    train, bare = tmp_path / "train.csv", tmp_path / "bare.csv"
    for video in ("a.mp4", "b.mp4"):
        (tmp_path / video).touch()
    train.write_text("path,kind\na.mp4,x\n")
    bare.write_text("path,kind\nb.mp4,\n")
    with pytest.raises(ProbeError, match="no validation clip has a label"):
        LabelledVideos(train=str(train), val=str(bare), label="kind").manifests(seed=0)
    both = LabelledVideos(train=str(train), val=str(train), label="kind").manifests(seed=0)
    assert both[1].rows[0].label == 0


def test_a_probe_that_is_not_there(tmp_path):
    with pytest.raises(ProbeError, match="no such probe. Give a folder of"):
        open_classifier(tmp_path / "nope")
