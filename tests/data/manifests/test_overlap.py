"""Validation clips that training has seen are said at the start of a fit."""

import logging
import os

import pytest

from tests.videos import write_manifest
from vjepa.data import VideoDataModule, read_manifest
from vjepa.data.manifests.overlap import overlapping
from vjepa.worlds import WorldConfig


def manifest(folder, name, *lines):
    for line in lines:
        (folder / line.partition(",")[0]).parent.mkdir(exist_ok=True)
        (folder / line.partition(",")[0]).touch()
    (folder / name).write_text("\n".join(["path,start,end,group", *lines]) + "\n")
    return read_manifest(folder / name)


@pytest.mark.parametrize(
    ("train", "val", "count"),
    [
        (["a.mp4,,,", "b.mp4,,,"], ["c.mp4,,,"], 0),
        (["a.mp4,,,", "b.mp4,,,"], ["b.mp4,,,", "c.mp4,,,"], 1),
        (["a.mp4,0,2,"], ["a.mp4,2,4,"], 0),
        (["a.mp4,0,2,"], ["a.mp4,1.5,4,", "a.mp4,,,"], 2),
        (["a.mp4,,,anna"], ["b.mp4,,,anna", "c.mp4,,,bert"], 1),
        (["x/a.mp4,,,"], ["y/a.mp4,,,"], 0),
        (["linked/a.mp4,,,"], ["a.mp4,,,"], 1),
    ],
)
def test_what_overlaps(tmp_path, train, val, count):
    os.symlink(tmp_path, tmp_path / "linked")
    found = overlapping([manifest(tmp_path, "t.csv", *train)], manifest(tmp_path, "v.csv", *val))
    assert len(found) == count


def test_it_is_said_once_at_the_start_of_a_fit(tmp_path, caplog):
    source = str(write_manifest(tmp_path, 5, num_frames=4, height=16, width=16))
    data = VideoDataModule(train=source, val=source)
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
        data.setup("fit")
        world = WorldConfig(root=str(tmp_path), num_train=4, num_val=2, num_frames=8, num_workers=1)
        VideoDataModule(world=world).setup("fit")
    (line,) = (record.getMessage() for record in caplog.records)
    assert "5 of 5 validation clips" in line and "Give other validation clips" in line
