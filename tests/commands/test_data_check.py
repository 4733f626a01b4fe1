import csv
import json
import os
import re
import shutil
import sys

import pytest

from tests.given.odd_decoder import OddDecoder
from tests.videos import write_broken, write_manifest, write_video
from vjepa.commands.app import main
from vjepa.commands.data_check import check_command
from vjepa.data import read_manifest
from vjepa.data.audit.findings import ClipNeeds
from vjepa.data.decoders.backends.pyav import PyAVDecoder
from vjepa.data.manifests.quarantine import Quarantine
from vjepa.errors import UsageError

ODD = f"{OddDecoder.__module__}.{OddDecoder.__name__}"


def run(source, out=None, **options):
    return check_command(source=str(source), out=out, **{"num_processes": 0} | options)


@pytest.mark.slow
def test_the_verb_finds_all_and_writes_its_files(tmp_path, capsys):
    folder, out = tmp_path / "set", tmp_path / "out"
    write_manifest(folder, 4, num_frames=16, height=32, width=48)
    shutil.copy(folder / "train" / "clip_000.mp4", folder / "train" / "again.mp4")
    for name in ("hangs", "crashes", "raises"):
        write_video(folder / "train" / f"{name}.mp4", num_frames=16, seed=hash(name) % 1000)
    write_broken(folder / "train")
    write_video(folder / "train" / "uneven.mp4", num_frames=4, seed=50, seconds=[0, 0.1, 0.2, 0.9])
    argv = f"data check {folder / 'train'} --out {out} --num_processes 2 --timeout_seconds 5 --decoder {ODD}"
    assert main([*argv.split(), "--num_frames", "5"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert (result["num_files"], result["num_broken"], result["num_hung"]) == (12, 6, 2)
    assert (result["num_duplicates"], result["num_short"], result["num_variable_fps"]) == (1, 1, 1)
    shown = capsys.readouterr().out
    assert "6 broken files, 0 rows without a frame, 0 rows repeated, 1 too short for a clip" in shown
    listed = list(csv.DictReader((out / "quarantine.csv").read_text().splitlines()))
    reasons = {row["path"].rpartition("/")[2]: row["reason"] for row in listed}
    assert len(reasons) == 7 and reasons["uneven.mp4"] == "4 frames, a clip has 5"
    assert reasons["hangs.mp4"] == "no result after 5 s: it hung and was ended"
    assert reasons["crashes.mp4"] == "its process crashed (SIGSEGV)"
    assert reasons["raises.mp4"] == "KeyError: 'a bug'"
    report = json.loads((out / "report.json").read_text())
    assert {f["kind"] for f in report["findings"]} == {"hung", "broken", "short", "variable", "duplicate"}
    assert report["files"][str(folder / "train" / "clip_001.mp4")]["num_frames"] == 16
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 6 and "all frames are those of" in page


def test_a_page_needs_nothing_else_and_holds_names_as_text(tmp_path):
    folder = tmp_path / "<script>alert(1)<"
    write_manifest(folder, 3, num_frames=4, height=16, width=16)
    (folder / "m.csv").write_text(
        "path,label\n"
        + "".join(f"train/clip_00{i}.mp4,<img src=x onerror=alert({i})>\n" for i in range(3))
        + "train/clip_000.mp4,&amp;\n"
    )
    report = run(folder / "m.csv", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert report.figures["num_repeated"] == 1
    assert "<script" not in page and "<img src=x" not in page and "&lt;img src=x onerror" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "http" not in page
    assert len(page) < 5_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="names there are Unicode")
def test_a_name_that_is_no_unicode_is_listed_and_left_out(tmp_path, capsys):
    folder = tmp_path / "set"
    write_manifest(folder, 1, num_frames=2, height=16, width=16)
    (folder / "train" / os.fsdecode(b"\xff.mp4")).write_bytes(b"")
    assert (
        main(["data", "check", str(folder / "train"), "--out", str(tmp_path / "o"), "--num_processes", "0"])
        == 0
    )
    assert r"\xff.mp4" in capsys.readouterr().out
    kept = Quarantine(tmp_path / "o").without(read_manifest(folder / "train"))
    assert [row.path.rpartition("/")[2] for row in kept.rows] == ["clip_000.mp4"]


def test_many_classes_fit_on_the_page(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"")
    rows = "".join(f"v.mp4,{i}\n" for i in range(600))
    (tmp_path / "m.csv").write_text("path,label\n" + rows)
    run(tmp_path / "m.csv", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "clips per class (the first 460 of 600)" in page


def test_a_long_list_is_shown_in_part_and_written_whole(tmp_path):
    (tmp_path / "set").mkdir()
    for i in range(103):
        (tmp_path / "set" / f"{i}.mp4").write_bytes(b"")
    report = run(tmp_path / "set", tmp_path / "out")
    assert len(report.rows) == 100 and report.title.endswith("(the first 100 of 103 findings)")
    assert len((tmp_path / "out" / "quarantine.csv").read_text().splitlines()) == 104


def test_a_check_is_taken_up_and_changed_files_are_read_again(tmp_path, monkeypatch):
    write_manifest(tmp_path / "set", 4, num_frames=4, height=16, width=16)
    opened = []
    real = PyAVDecoder.open.__func__

    def counted(cls, path):
        opened.append(str(path)[-5])
        return real(cls, path)

    monkeypatch.setattr(PyAVDecoder, "open", classmethod(counted))
    out = tmp_path / "out"
    first = run(tmp_path / "set" / "train.csv", out)
    journal = (out / "check.jsonl").read_bytes()
    (out / "check.jsonl").write_bytes(b"".join(journal.splitlines(keepends=True)[:2]))
    opened.clear()
    monkeypatch.setattr("vjepa.commands.data_check.write_page", lambda *a, **k: None)  # it reads pictures
    again = run(tmp_path / "set" / "train.csv", out, resume=True)
    assert opened == ["2", "3"] and again.figures == first.figures
    opened.clear()
    write_video(tmp_path / "set" / "train" / "clip_001.mp4", num_frames=5, height=16, width=16)
    assert run(tmp_path / "set" / "train.csv", out, resume=True).figures["num_frames"] == 17
    assert opened == ["1"]
    opened.clear()
    run(tmp_path / "set" / "train.csv", out)
    assert len(opened) == 4, "without --resume all is read"
    opened.clear()
    argv = ["data", "check", str(tmp_path / "set" / "train.csv"), "--out", str(out), "--num_processes", "0"]
    assert main([*argv, "--resume"]) == 0 and not opened
    assert main([*argv, "--resume", "false"]) == 0 and len(opened) == 4
    with pytest.raises(UsageError, match="Give the folder it wrote to"):
        run(tmp_path / "set" / "train.csv", resume=True)


def test_splits_of_one_manifest_and_two_manifests_are_compared(tmp_path):
    write_manifest(tmp_path, 3, num_frames=4, height=16, width=16)
    shutil.copy(tmp_path / "train" / "clip_001.mp4", tmp_path / "copy.mp4")
    one = tmp_path / "one.csv"
    one.write_text(
        "path,split\ntrain/clip_000.mp4,train\ntrain/clip_001.mp4,train\ncopy.mp4,val\ntrain/clip_002.mp4,val\n"
    )
    (leak,) = run(one).figures["leak"]
    assert leak["reason"].startswith("the same video is in train (") and "copy.mp4, line 4)" in leak["reason"]
    val = tmp_path / "val.csv"
    val.write_text("path\ncopy.mp4\n")
    (leak,) = run(tmp_path / "train.csv", against=str(val)).figures["leak"]
    assert re.search(
        r"in train.csv \(.*clip_001.mp4, line 3\), val.csv \(.*copy.mp4, line 2\)", leak["reason"]
    )
    assert run(tmp_path / "train.csv").figures["leak"] == []
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "val.csv").write_text("path\n../copy.mp4\n")
    (leak,) = run(val, against=str(tmp_path / "b" / "val.csv")).figures["leak"]
    assert f"{val} (" in leak["reason"]


def test_clips_of_the_recipe_decide_what_is_short(tmp_path):
    write_video(tmp_path / "v.mp4", num_frames=16, height=16, width=16, fps=8.0)
    for options, short in (
        ({}, 0),
        ({"num_frames": 17}, 1),
        ({"num_frames": 8, "fps": 4.0}, 0),
        ({"num_frames": 10, "fps": 4.0}, 1),
        ({"min_seconds": 2.5}, 1),
    ):
        assert run(tmp_path / "v.mp4", needs=ClipNeeds(**options)).figures["num_short"] == short, options
    assert run(tmp_path / "v.mp4", needs=ClipNeeds(fps=9.0)).figures["num_odd_fps"] == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of what it leaves open
def test_a_check_on_ray_finds_the_same(tmp_path, ray_cluster):
    write_manifest(tmp_path, 3, num_frames=4, height=16, width=16)
    write_broken(tmp_path / "train")
    here = run(tmp_path / "train", tmp_path / "here")
    there = run(tmp_path / "train", tmp_path / "there", engine="ray", num_processes=1)
    assert (there.rows, there.figures) == (here.rows, here.figures)
    assert here.title.splitlines()[:2] == [
        f"page: {tmp_path / 'here' / 'report.html'}",
        f"quarantine: {tmp_path / 'here' / 'quarantine.csv'}",
    ]
    assert there.title.splitlines()[2:] == here.title.splitlines()[2:]
    for name in ("report.json", "report.html", "quarantine.csv"):
        assert (tmp_path / "here" / name).read_text() == (tmp_path / "there" / name).read_text()


def test_files_are_listed_with_progress(tmp_path, caplog, monkeypatch):
    write_manifest(tmp_path, 2, num_frames=2, height=16, width=16)
    monkeypatch.setattr("vjepa.commands.data_check.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level("INFO", logger="vjepa"):
        run(tmp_path / "train")
    assert "2 of 2 files decoded" in caplog.text
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run(tmp_path / "train").figures["num_files"] == 2
