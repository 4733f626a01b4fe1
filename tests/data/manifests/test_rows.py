import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vjepa.data import Manifest, ManifestRow
from vjepa.data.manifests.rows import Rows, Texts, join_path

ROWS = [
    ManifestRow("a.mp4", 1, 0.5, 2.0, "kitchen", 2.5, 2, "p1"),
    ManifestRow("b é.mp4"),
    ManifestRow("s3://bucket/c.mp4", 0, start=1.0),
    ManifestRow("d.mp4", end=3.0, group="kitchen", pair="p1"),
]


def test_rows_come_back_as_they_went_in():
    rows = Rows.of(ROWS)
    assert list(rows) == ROWS and len(rows) == 4 and rows[-1] == ROWS[-1]
    assert list(rows[1:]) == ROWS[1:] and list(rows[::-2]) == ROWS[::-2]
    assert list(rows.take(np.array([2, 0]))) == [ROWS[2], ROWS[0]]
    assert list(pickle.loads(pickle.dumps(rows))) == ROWS
    assert len(Rows.of([])) == 0 and list(Rows.of([])) == []
    with pytest.raises(IndexError):
        rows[4]


def test_paths_are_joined_to_the_base_when_a_row_is_asked_for(monkeypatch):
    rows = replace(Rows.of(ROWS), base="/data")
    assert rows[0].path == str(Path("/data/a.mp4")) and rows[2].path == "s3://bucket/c.mp4"
    assert rows[1:][0].path == str(Path("/data/b é.mp4"))
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("USERPROFILE", "/home/someone")
    assert join_path("/data", "~/a.mp4") == str(Path("/home/someone/a.mp4"))
    assert join_path("", "./a.mp4") == "./a.mp4"


def test_texts_hold_what_no_utf8_name_can():
    texts = Texts.of(["", "ü", "bad\udcff", ""])
    assert [texts[i] for i in range(4)] == ["", "ü", "bad\udcff", ""]
    assert list(Texts.joined([texts, texts.take(np.array([1]))]).encoded())[-2:] == [b"", "ü".encode()]


def test_a_manifest_of_plain_rows_still_works():
    manifest = Manifest(tuple(ROWS), ("x", "y"), "videos", "the list")
    assert manifest.rows[1].label == -1 and "4 clips, 2 classes" in manifest.describe()
