"""The folder of a probe: old ones open and give the same scores, and a probe class of one's own travels."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import vjepa
from tests.docs_blocks import blocks_of
from tests.probes.test_commands import QUICK, tiny_encoder, write_split
from tests.probes.verbs import classify, probe
from vjepa.checkpoints import load_encoder, save_folder
from vjepa.commands.app import main
from vjepa.errors import VjepaError
from vjepa.probes import ActionScores, ProbeError, open_classifier
from vjepa.probes.files import open_probe

BEFORE = Path(__file__).parents[1] / "fixtures" / "before"
EXPECTED = json.loads((BEFORE / "probe_expected.json").read_text())


@pytest.mark.parametrize("kind", ["linear", "attentive", "knn", "finetune"])
def test_old_folders_give_the_same_probabilities(kind):
    folder = BEFORE / f"probe_{kind}"
    encoder = folder / "encoder" if kind == "finetune" else BEFORE / "probe_encoder"
    classifier = open_classifier(folder, encoder=str(encoder))
    assert classifier.kind == kind and classifier.label_names == ("a", "b", "c")
    frames = classifier.spec.clips_per_video * classifier.spec.num_frames
    video = torch.arange(3 * frames * 64).reshape(1, 3, frames, 8, 8).float().mul(0.37).sin()
    torch.testing.assert_close(
        classifier.probabilities(video)[0], torch.tensor(EXPECTED[kind]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("key", "reason"), [("segments", "at most 65536 frames"), ("depth", "depth 1000000000, of 17 tensors")]
)
def test_a_number_that_would_never_end_is_refused(tmp_path, key, reason):
    shutil.copytree(BEFORE / "probe_attentive", tmp_path / "p")
    card = json.loads((tmp_path / "p" / "probe.json").read_text())
    (tmp_path / "p" / "probe.json").write_text(json.dumps(card | {key: 10**9}))
    with pytest.raises(VjepaError, match=reason):
        open_probe(tmp_path / "p")


@torch.no_grad()
def test_an_old_anticipation_probe_gives_the_same_scores():
    scores = vjepa.load_probe(BEFORE / "probe_epic")(
        torch.arange(144).reshape(2, 6, 12).float().mul(0.7).sin()
    )
    assert isinstance(scores, ActionScores)
    for task, expected in EXPECTED["epic"].items():
        torch.testing.assert_close(getattr(scores, task), torch.tensor(expected), atol=1e-6, rtol=0)
    card = open_probe(BEFORE / "probe_epic")[1]
    assert (card.clip.num_frames, card.clip.fps, card.clip.size) == (4, 8.0, (8, 8))
    assert len(card.task_names["action"]) == len(card.label_names) == 3


HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "probing.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_split(folder, "train", 12, 0)
    write_split(folder, "val", 6, 100)
    save_folder(folder / "encoder", tiny_encoder(0))
    return folder


def given(place):
    return {
        name: str(place / file)
        for name, file in [("encoder", "encoder"), ("train", "train.csv"), ("val", "val.csv")]
    }


def test_a_class_of_ones_own_trains_and_travels(place, tmp_path, monkeypatch):
    (block,) = (b for b in blocks_of(HOWTO.read_text(encoding="utf-8")) if b.language == "python")
    (tmp_path / "my_probe.py").write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    argv = [word for name, value in given(place).items() for word in (f"--{name}", value)]
    own = ["--probe", "my_probe.MaxProbe", "--lr", "1e-2", "1e-3", "--random_init", "false"]
    assert main(["probe", *argv, *own, "--out", str(tmp_path / "p"), "--grid.num_steps", "40"]) == 0
    result = json.loads((tmp_path / "p" / "result.json").read_text())
    assert result["top1"] == 1.0 and result["chosen"]["num_steps"] == 40
    videos = [str(place / "val/1.mp4")]
    with pytest.raises(ProbeError, match="If you trust it, name it with --probe_class my_probe.MaxProbe"):
        classify(probe=tmp_path / "p", videos=videos)
    found = classify(probe=tmp_path / "p", videos=videos, probe_class="my_probe.MaxProbe").figures[
        "predictions"
    ]
    assert next(iter(found.values()))[0]["label"] == "dark"
    assert main(["inspect", str(tmp_path / "p")]) == 0


def test_unknown_classes_are_refused_before_the_work(place, tmp_path):
    for name, advice in (
        ("atentive", "nearest is 'attentive'"),
        ("no_such.Probe", "cannot be imported"),
        ("torch.nn.Linear", "not a subclass of vjepa.probes.Probe"),
    ):
        with pytest.raises(ProbeError, match=advice):
            probe(**given(place), probe=name, out=tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_a_probe_does_not_replace_an_encoder(place):
    with pytest.raises(ProbeError, match="Give another folder for the probe as --out"):
        probe(**given(place), out=place / "encoder")
    load_encoder(place / "encoder")


@pytest.mark.parametrize("kind", ["linear", "attentive", "knn"])
def test_convert_and_inspect_read_a_probe(place, tmp_path, kind):
    probe(**given(place), probe=kind, out=tmp_path / "p", grid=QUICK, random_init=False)
    assert main(["inspect", str(tmp_path / "p")]) == 0
    assert main(["convert", str(tmp_path / "p"), str(tmp_path / "n"), "--to", "native"]) == 0
    videos = [str(place / "val/1.mp4")]
    one, other = (classify(probe=tmp_path / name, videos=videos).figures["predictions"] for name in "pn")
    assert one == other
    assert main(["convert", str(tmp_path / "p"), str(tmp_path / "m.pt"), "--to", "meta"]) == 2
