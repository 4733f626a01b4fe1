"""Released probes name videos; long videos are named window by window; what cannot be read is listed."""

import csv
import json

import pytest
import torch
from PIL import Image

from tests.checkpoints.given import HEADS, WIDTH, convert, random_, tiny_encoder, tiny_probe
from tests.probes.test_commands import write_clip
from tests.probes.verbs import classify
from tests.videos import moving_frames, write_broken, write_video
from vjepa.checkpoints import save_meta
from vjepa.commands.app import main
from vjepa.data.manifests.rows import Manifest, ManifestRow
from vjepa.errors import FileError
from vjepa.features import FeaturesError
from vjepa.models.files import save_folder
from vjepa.probes import AttentiveProbe, ProbeError, mean_probabilities, view_tokens
from vjepa.probes.classifier import open_classifier
from vjepa.probes.labels import read_labels
from vjepa.probes.protocols import PROTOCOLS, protocol_named_by

NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Released probes of every make, their encoder, two clips, and the names in a file."""
    folder = tmp_path_factory.mktemp("released")
    encoder, deep, shallow = tiny_encoder(), tiny_probe(num_heads=2), tiny_probe(depth=1, num_heads=2)
    save_folder(folder / "encoder", encoder)
    save_meta(folder / "ssv2-vitl-4x2x3.pt", probe=deep)
    save_meta(folder / "ssv2-probe.pth.tar", probe=shallow)
    save_meta(folder / "whole.pt", encoder=encoder, probe=deep)
    heads = {"num_heads": HEADS["encoder"], "probe_num_heads": 2, "img_size": 32}
    for to in ("native", "hf"):
        convert(src=str(folder / "whole.pt"), dst=folder / to, to=to, **heads)
    config = json.loads((folder / "hf" / "config.json").read_text())
    config["id2label"] = {str(i): name for i, name in enumerate(NAMES)}
    (folder / "hf" / "config.json").write_text(json.dumps(config))
    (folder / "names.csv").write_text("id,label\n" + "".join(f"{i},{n}\n" for i, n in enumerate(NAMES)))
    for i in range(2):
        write_clip(folder / f"{i}.mp4", (60, 200)[i], i)
    return folder


def expected(place, classifier, video, spec):
    """Probabilities spelt out: clips one by one, tokens side by side, the mean of the softmax over views."""
    sample = classifier.clips(Manifest((ManifestRow(str(video)),), (), "videos", "test"))[0].video
    clips = sample.reshape(3, spec.views, spec.segments, -1, 32, 32).permute(2, 1, 0, 3, 4, 5)[None]
    with torch.no_grad():
        return mean_probabilities(
            classifier.head, view_tokens(classifier.encoder, clips, layers=spec.layers)
        )[0]


@pytest.mark.parametrize("name", ["ssv2-vitl-4x2x3.pt", "ssv2-probe.pth.tar", "hf", "native"])
def test_released_probes_of_every_make(place, name):
    given = {} if name in ("hf", "native") else {"encoder": str(place / "encoder")}
    labels = {} if name == "hf" else {"labels": str(place / "names.csv")}
    report = classify(probe=place / name, videos=[str(place / "0.mp4")], device="cpu", **given, **labels)
    (found,) = report.figures["predictions"].values()
    classifier = open_classifier(place / name, **given, **labels)
    shares = expected(place, classifier, place / "0.mp4", classifier.spec)
    assert {x["label"]: pytest.approx(x["probability"], abs=1e-5) for x in found} == {
        n: float(s) for n, s in zip(NAMES, shares, strict=True)
    }
    assert report.exit_code == 0


def test_the_name_of_a_released_file_tells_how_clips_are_cut(place):
    classifier = open_classifier(place / "ssv2-vitl-4x2x3.pt", encoder=str(place / "encoder"))
    assert (classifier.spec.num_frames, classifier.spec.frame_step) == (4, 4)
    assert (classifier.spec.segments, classifier.spec.views) == (2, 3)
    assert classifier.label_names == tuple(f"class {i}" for i in range(5))
    named = open_classifier(place / "native", protocol_name="ssv2-g384")
    assert (named.spec.num_frames, named.spec.frame_step, named.spec.segments) == (64, 2, 2)
    assert protocol_named_by("k400-probe.pth.tar", depth=1) == ("k400-v1", PROTOCOLS["k400-v1"])
    assert protocol_named_by("vjepa2-vitg-fpc32-384-diving48", depth=4) == ("diving48", PROTOCOLS["diving48"])
    assert protocol_named_by("probe.pt", depth=4) is None
    with pytest.raises(ProbeError, match="nearest is 'ssv2'"):
        open_classifier(place / "native", protocol_name="ssv3")


def test_probes_of_several_levels(place, tmp_path):
    file = save_meta(tmp_path / "diving48-vitl-4x1x1.pt", probe=tiny_probe(num_heads=2))
    encoder = str(place / "encoder")
    with pytest.raises(ProbeError, match=r"Say which with --layers, for example --layers \[1,1\]"):
        open_classifier(file, encoder=encoder)
    classifier = open_classifier(file, encoder=encoder, layers=[0, 1])
    assert classifier.spec.layers == (0, 1)
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        levels = torch.cat(classifier.encoder.forward_intermediates(video, [0, 1]), dim=1)
        torch.testing.assert_close(classifier.probabilities(video), classifier.head(levels).softmax(-1))
    assert PROTOCOLS["diving48"].layers(24) == (17, 19, 21, 23) and PROTOCOLS["ssv2"].layers(2) is None


def test_what_does_not_fit(place, tmp_path):
    videos = [str(place / "0.mp4")]
    with pytest.raises(ProbeError, match="no encoder. Name the encoder's place with --encoder"):
        classify(probe=place / "ssv2-vitl-4x2x3.pt", videos=videos)
    with pytest.raises(ProbeError, match="Give a probe: of"):
        classify(probe=place / "encoder", videos=videos)
    save_folder(tmp_path / "wide", tiny_encoder(embed_dim=2 * WIDTH))
    with pytest.raises(ProbeError, match="Give the encoder it was trained on"):
        classify(probe=place / "ssv2-vitl-4x2x3.pt", videos=videos, encoder=str(tmp_path / "wide"))
    with pytest.raises(ProbeError, match="k400 names 400 classes, the probe has 5"):
        classify(probe=place / "native", videos=videos, labels="k400")
    other = random_(AttentiveProbe(embed_dim=WIDTH, num_classes=5, num_heads=2), 1)
    with torch.no_grad():
        other.linear.weight.fill_(3e38)  # finite, but the scores are not
    broken = save_meta(tmp_path / "large.pt", probe=other)
    with pytest.raises(ProbeError, match="not finite"):
        classify(probe=broken, videos=videos, encoder=str(place / "encoder"))


def test_label_files(tmp_path):
    assert read_labels("k400")[:2] == ("abseiling", "air drumming") and len(read_labels("ucf101")) == 101
    (tmp_path / "labels.json").write_text('{"Moving": "1", "Holding": "0"}')
    assert read_labels(str(tmp_path / "labels.json")) == ("Holding", "Moving")
    (tmp_path / "id2label.json").write_text('{"1": "b", "0": "a"}')
    assert read_labels(str(tmp_path / "id2label.json")) == ("a", "b")
    (tmp_path / "gap.csv").write_text("id,label\n0,a\n2,b\n")
    with pytest.raises(ProbeError, match="without a gap"):
        read_labels(str(tmp_path / "gap.csv"))
    (tmp_path / "bare.csv").write_text("a\nb\n")
    with pytest.raises(FileError, match="bare.csv:1: missing column 'id'"):
        read_labels(str(tmp_path / "bare.csv"))
    with pytest.raises(ProbeError, match="labels.json"):
        read_labels("ssv2")


def test_windows_are_named_one_by_one(place, tmp_path, capsys):
    clip = str(place / "0.mp4")  # 4 frames at 8 fps
    arguments = [
        "classify",
        "--probe",
        str(place / "hf"),
        "--window",
        "0.25",
        "--out",
        str(tmp_path),
        "--top",
        "2",
    ]
    assert main([*arguments, clip, str(tmp_path / "missing.mp4")]) == 2
    result = json.loads((tmp_path / "result.json").read_text())
    windows = result["windows"][clip]
    assert [(w["start"], w["end"]) for w in windows] == [(0.0, 0.25), (0.25, 0.5)]
    assert [f["path"] for f in result["failures"]] == [str(tmp_path / "missing.mp4")]
    printed = capsys.readouterr().out
    assert "cannot be read" in printed and "all windows" in printed
    with (tmp_path / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and rows[0]["label"] == windows[0]["labels"][0]["label"]
    assert rows[-1]["start"] == "" and rows[-2]["rank"] == "1"
    whole = classify(probe=place / "hf", videos=[clip], window=0.25, top=5).figures
    by_window = [{x["label"]: x["probability"] for x in w["labels"]} for w in whole["windows"][clip]]
    for found in whole["predictions"][clip]:
        mean = sum(w[found["label"]] for w in by_window) / 2
        assert found["probability"] == pytest.approx(mean, abs=1e-6)
    assert (
        len(classify(probe=place / "hf", videos=[clip], window=0.25, stride=0.125).figures["windows"][clip])
        == 3
    )
    assert main([*arguments[:3], clip]) == 0


def test_of_a_video_without_its_end_the_windows_before_the_damage_are_named(place, tmp_path, capsys):
    whole = write_video(tmp_path / "whole.mkv", num_frames=48, fps=8, height=32, width=32)
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    probe = ["classify", "--probe", str(place / "hf"), "--window", "1", "--out", str(tmp_path / "out")]
    assert main([*probe, str(whole), str(broken)]) == 2
    printed = capsys.readouterr().out
    assert "nothing is read from" in printed
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    (failure,) = result["failures"]
    assert failure["path"] == str(broken) and "truncated" in failure["reason"]
    all_of_it, before = (result["windows"][str(video)] for video in (whole, broken))
    assert 2 <= len(before) < len(all_of_it) == 6
    for ours, theirs in zip(before[:-1], all_of_it, strict=False):  # the last one ends with what can be read
        assert ours["start"] == theirs["start"]
        for found, expected in zip(ours["labels"], theirs["labels"], strict=True):
            assert found["label"] == expected["label"]
            assert found["probability"] == pytest.approx(expected["probability"], abs=1e-6)
    assert main(["classify", "--probe", str(place / "hf"), str(broken)]) == 2  # its middle is not known


def test_windows_that_cannot_be(place):
    with pytest.raises(FeaturesError, match="both are seconds, at least 0.001"):
        classify(probe=place / "hf", videos=[str(place / "0.mp4")], window=0.0)
    with pytest.raises(FeaturesError, match="Give its length with --window"):
        classify(probe=place / "hf", videos=[str(place / "0.mp4")], stride=1.0)
    with pytest.raises(ProbeError, match="none of the 1 clips"):
        classify(probe=place / "hf", videos=[str(place / "gone.mp4")], window=1.0)


def test_a_folder_is_all_of_its_videos(place, tmp_path):
    paths = [write_video(tmp_path / "v" / kind / f"{kind}.mp4", seed=i) for i, kind in enumerate("ab")]
    images = tmp_path / "frames"
    images.mkdir()
    for i, image in enumerate(moving_frames(16)):
        Image.fromarray(image).save(images / f"{i:03d}.png")
    given = [str(tmp_path / "v"), str(images)]
    report = classify(probe=place / "hf", videos=given, device="cpu")
    assert list(report.figures["predictions"]) == [*map(str, paths), given[1]] and report.exit_code == 0
    single = classify(probe=place / "hf", videos=[str(paths[0])], device="cpu").figures["predictions"]
    assert report.figures["predictions"][str(paths[0])][0]["label"] == single[str(paths[0])][0]["label"]
    write_broken(tmp_path / "v" / "b")
    report = classify(probe=place / "hf", videos=[str(tmp_path / "v")], device="cpu")
    assert report.exit_code == 2 and list(report.figures["predictions"])[:2] == list(map(str, paths))
