"""Every verb on hostile names: all videos are read, nothing controls the terminal, and files give the names back."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pytest
import torch

import vjepa
from tests.given.names import CLASS_NAMES, VIDEO_NAMES, named_classes, named_videos
from tests.recipes import tiny_recipe
from vjepa.commands.app import main
from vjepa.commands.data_index import index_command
from vjepa.data import read_manifest

pytestmark = pytest.mark.slow

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\udc80-\udcff]")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with an encoder, videos of hostile names in `flat`, and class folders of such names in `classes`."""
    folder = tmp_path_factory.mktemp("names")
    torch.manual_seed(0)
    settings = {"img_size": 16, "patch_size": 8, "num_frames": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
    vjepa.VideoEncoder(**settings).save_pretrained(folder / "encoder")
    named_videos(folder / "flat")
    named_classes(folder / "classes")
    return folder


@pytest.fixture
def run(place, capsys):
    """Return a function that runs a verb, and fails if it does not succeed or prints what controls a terminal."""

    def command(*argv: object, code: int = 0) -> str:
        found = main([str(each) for each in argv])
        shown = capsys.readouterr()
        assert found == code, shown.err[-2000:]
        assert not CONTROL.search(shown.out + shown.err)
        return shown.out + shown.err

    return command


@pytest.mark.parametrize("source", ["flat", "classes"])
@pytest.mark.parametrize("format", ["safetensors", "parquet"])
def test_extract_and_search(place, run, tmp_path, source, format):
    flags = ("--encoder", place / "encoder", "--data", place / source, "--format", format, "--index")
    run("extract", *flags, "--out", tmp_path / "features")
    rows = vjepa.features.open(tmp_path / "features").rows
    names = {os.fsencode(Path(row.path).name) for row in rows}
    if source == "flat":
        assert names >= set(VIDEO_NAMES)
    else:
        assert {os.fsencode(row.label_name) for row in rows} == set(CLASS_NAMES)
    run("search", rows[0].path, "--features", tmp_path / "features", "--top", len(rows))


@pytest.mark.parametrize("source", ["flat", "classes"])
def test_shards_hold_every_video(place, run, tmp_path, source):
    run("data", "shard", place / source, "--out", tmp_path / "shards")
    shards, whole = read_manifest(tmp_path / "shards"), read_manifest(place / source)
    assert len(shards) == len(whole) and set(shards.label_names) == set(whole.label_names)
    run("data", "check", tmp_path / "shards", "--out", tmp_path / "check", "--num_processes", 0)
    (tmp_path / "shards" / "shards.json").unlink()
    run("data", "check", tmp_path / "shards", "--out", tmp_path / "again", "--num_processes", 0)


@pytest.mark.parametrize("source", ["flat", "classes"])
def test_check_quarantines_the_named_files_alone(place, run, tmp_path, source):
    run("data", "check", place / source, "--out", tmp_path, "--num_processes", 0)
    assert json.loads((tmp_path / "result.json").read_text())["num_broken"] == 0
    report = index_command(source=str(place / source), out=tmp_path / "packets.index", num_processes=0)
    assert report.figures["num_broken"] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page


def test_broken_files_are_named_safely(run, place, tmp_path):
    for path in named_videos(tmp_path / "broken"):
        Path(path).write_bytes(b"no video")
    run("data", "check", tmp_path / "broken", "--out", tmp_path / "check", "--num_processes", 0)
    flags = ("--encoder", place / "encoder", "--data", tmp_path / "broken", "--out", tmp_path / "features")
    assert r"\x07bell.mp4" in run("extract", *flags, code=2)
    with (tmp_path / "check" / "quarantine.csv").open(newline="", errors="surrogateescape") as file:
        listed = [row["path"] for row in csv.DictReader(file)]
    assert sorted(listed) == sorted(str(path) for path in (tmp_path / "broken").iterdir())


def test_probe_and_classify(place, run, tmp_path):
    data = ("--train", place / "classes", "--val", place / "classes", "--random_init", "false")
    quick = ("--grid.num_steps", 2, "--lr", "1e-3", "--out", tmp_path / "probe")
    run("probe", "--encoder", place / "encoder", *data, *quick)
    run(
        "classify",
        "--probe",
        tmp_path / "probe",
        place / "flat",
        place / "classes",
        "--out",
        tmp_path / "found",
    )
    with (tmp_path / "found" / "classes.csv").open(newline="", errors="surrogateescape") as file:
        found = {row["video"] for row in csv.DictReader(file)}
    assert len(found) == len(VIDEO_NAMES) + len(CLASS_NAMES)


@pytest.mark.parametrize("source", ["flat", "classes"])
def test_fit(place, run, tmp_path, source):
    (tmp_path / "data").mkdir()
    broken = named_videos(tmp_path / "data" / "broken")[:10]
    for path in broken:
        Path(path).write_bytes(b"no video")
    recipe = tiny_recipe(tmp_path, place / source, root=tmp_path / "runs", max_steps=2)
    run("fit", "--config", recipe, "--data.val", place / source)
    flags = ("--data.train", tmp_path / "data" / "broken", "--data.reading.max_failures", 99)
    run("fit", "--config", recipe, *flags, "--trainer.max_steps", 8)
    result = json.loads((tmp_path / "runs" / "version_1" / "result.json").read_text())
    assert result["failed_clips"] > 0
