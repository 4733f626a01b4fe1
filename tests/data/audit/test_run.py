from pathlib import Path

import pytest
import yaml

from tests.videos import write_broken, write_manifest, write_video
from vjepa.commands.data_check import check_command
from vjepa.data import ManifestError
from vjepa.data.audit import check


def test_lists_what_is_broken_and_measures_the_rest(tmp_path):
    write_manifest(tmp_path, 4, num_frames=16, height=16, width=32, fps=8.0)
    broken = write_broken(tmp_path / "train")
    report = check(tmp_path / "train")
    assert {b.path for b in report.broken} == {str(b) for b in broken}
    assert (report.num_files, report.num_frames) == (7, 64)
    assert report.seconds == pytest.approx(8.0, abs=0.01)
    assert report.sizes == {"32 x 16": 4}
    assert check(tmp_path / "train.csv").labels == {"left": 2, "right": 2}


def test_a_file_in_several_rows_is_decoded_once(tmp_path):
    write_video(tmp_path / "v.mp4", num_frames=80, height=16, width=16)
    (tmp_path / "m.csv").write_text("path,start,end\nv.mp4,0,1\nv.mp4,1,2\n")
    report = check(tmp_path / "m.csv")
    assert (len(report.manifest), report.num_files, report.num_frames) == (2, 1, 80)
    assert report.labels == {"(none)": 2}


def test_command_writes_the_quarantine(tmp_path):
    write_manifest(tmp_path / "set", 2, num_frames=2, height=16, width=16)
    write_broken(tmp_path / "set" / "train")
    report = check_command(
        source=str(tmp_path / "set" / "train"), out=tmp_path / "out", decoder="pyav", num_processes=0
    )
    assert report.figures["num_broken"] == 3 and len(report.rows) == 3
    assert len((tmp_path / "out" / "quarantine.csv").read_text().splitlines()) == 4
    with pytest.raises(ManifestError, match="no such file below"):
        check_command(source=str(tmp_path / "set" / "train.csv"), root=str(tmp_path))


def test_rows_without_a_frame_and_repeated_rows_are_named_by_line(tmp_path):
    write_video(tmp_path / "v.mp4", num_frames=8, height=16, width=16, fps=8.0)
    rows = ["path,label,start,end", "v.mp4,a,0,0.5", "v.mp4,a,9,10", "v.mp4,b,0,0.5", "v.mp4,a,0,0.5"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    report = check(tmp_path / "m.csv")
    assert [found.reason for found in report.empty] == ["line 3: no frame from 9 to 10 seconds"]
    repeated = [found.reason for found in report.repeated]
    assert repeated == ["line 4 repeats line 2 with another label", "line 5 repeats line 2"]
    assert len(check_command(source=str(tmp_path / "m.csv"), num_processes=0).rows) == 3


def test_the_share_of_clips_that_a_shipped_recipe_pads(tmp_path):
    for name, num_frames in (("short", 8), ("long", 16), ("image", 1)):
        write_video(tmp_path / f"{name}.mp4", num_frames=num_frames, height=16, width=16, fps=8.0)
    report = check_command(source=str(tmp_path), num_processes=0)
    assert report.figures["padded"] == {
        "recipe": "configs/folder.yaml",
        "num_frames": 16,
        "fps": 8.0,
        "num_clips": 1,
        "share": 1 / 3,
    }
    assert "33 % of the rows shorter than a clip of configs/folder.yaml" in report.title
    sampler = yaml.safe_load((Path(__file__).parents[3] / "configs" / "folder.yaml").read_text())["data"][
        "sampler"
    ]
    assert sampler == {"num_frames": 16, "fps": 8.0}
