"""Files written before the second house (commit 8fb190a) open and give the same numbers."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vjepa
import vjepa.features
from vjepa.commands.app import main

BEFORE = Path(__file__).parent / "fixtures" / "before"
VIDEOS = sorted((BEFORE / "videos").glob("*/*.mp4"))


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    recipe = (BEFORE / "tiny.yaml").read_text(encoding="utf-8")
    recipe = recipe.replace("train: videos", f"train: {BEFORE / 'videos'}")
    recipe = recipe.replace("default_root_dir: run", f"default_root_dir: {tmp_path / 'run'}")
    (tmp_path / "tiny.yaml").write_text(recipe, encoding="utf-8")
    given = ["--config", str(tmp_path / "tiny.yaml"), "--ckpt_path", str(BEFORE / "last.ckpt")]
    assert main(["fit", *given, "--trainer.max_steps", "6"]) == 0
    (table,) = (tmp_path / "run").glob("version_*/metrics.csv")
    with table.open(newline="") as file:
        losses = {
            int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]
        }
    assert losses == {4: pytest.approx(0.7571709156, abs=2e-5), 5: pytest.approx(0.8018389344, abs=2e-5)}


@pytest.mark.parametrize("name", ["features", "features_windows"])
def test_features_open(name):
    store = vjepa.features.open(BEFORE / name)
    assert len(store.rows) == len(store) and store.features.shape[1:] == (16,)
    assert {row.label_name for row in store.rows} == {"left", "right"}
    assert torch.equal(store.features, load_file(BEFORE / name / "features.safetensors")["features"])


@pytest.mark.parametrize(
    ("flags", "file"),
    [
        ([], "features/features.safetensors"),
        (["--window", "0.5", "--stride", "0.25"], "features_windows/features.safetensors"),
        (["--pool", "none"], "features_none.safetensors"),
    ],
)
def test_extract_gives_the_same_features(tmp_path, flags, file):
    given = [
        "--encoder",
        str(BEFORE / "export"),
        "--data",
        str(BEFORE / "videos"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["extract", *given, *flags]) == 0
    made, before = load_file(tmp_path / "out" / "features.safetensors"), load_file(BEFORE / file)
    assert made.keys() == before.keys()
    for key, tensor in before.items():
        torch.testing.assert_close(made[key], tensor, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("probe", "videos", "flags", "file"),
    [
        ("run_probe_linear", ["left/0.mp4", "right/1.mp4"], [], "classified.json"),
        ("run_probe_attentive", [""], ["--window", "0.75"], "classified_windows.json"),
    ],
)
def test_old_probes_classify_as_they_did(tmp_path, probe, videos, flags, file):
    paths = [str(BEFORE / "videos" / video).rstrip("/") for video in videos]
    given = [
        "--probe",
        str(BEFORE / probe),
        "--encoder",
        str(BEFORE / "export"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["classify", *paths, *given, *flags]) == 0
    made = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    before = json.loads((BEFORE / file).read_text(encoding="utf-8"))
    for part in ("predictions", "windows"):
        found = {
            Path(video).as_posix().rpartition("videos/")[2]: x for video, x in made.get(part, {}).items()
        }
        expected = {video.rpartition("videos/")[2]: x for video, x in before.get(part, {}).items()}
        assert found.keys() == expected.keys()
        for video, listed in expected.items():
            assert shares(found[video]) == pytest.approx(shares(listed), abs=1e-5)


def shares(listed):
    """Probability of each label, of a video or of each of its windows."""
    if listed and "labels" in listed[0]:
        return {f"{w['start']:.3f} {x['label']}": x["probability"] for w in listed for x in w["labels"]}
    return {x["label"]: x["probability"] for x in listed}


def test_the_old_knn_probe_opens_with_its_old_path(tmp_path, capsys):
    shutil.copytree(BEFORE / "run_probe_knn", tmp_path / "probe")
    assert main(["classify", str(VIDEOS[0]), "--probe", str(tmp_path / "probe")]) == 2
    assert "no longer at" in capsys.readouterr().err  # the encoder has moved; the message asks for --encoder
    given = ["--probe", str(tmp_path / "probe"), "--encoder", str(BEFORE / "export")]
    assert main(["classify", str(VIDEOS[0]), *given]) == 0


def test_networks_load():
    encoder = vjepa.load_encoder(BEFORE / "export")
    stored = vjepa.load_encoder(BEFORE / "last.ckpt")
    assert encoder.config == stored.config
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), stored.parameters(), strict=True))
    assert vjepa.load_predictor(BEFORE / "export").config == vjepa.load_predictor(BEFORE / "last.ckpt").config
