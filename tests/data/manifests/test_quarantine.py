import csv
import json

import pytest

from tests.recipes import tiny_recipe
from tests.videos import write_broken, write_manifest, write_videos
from vjepa.commands.app import main
from vjepa.data import ManifestError, VideoDataModule, read_manifest
from vjepa.data.loading.reading import Reading
from vjepa.data.manifests.identity import row_identities
from vjepa.data.manifests.quarantine import Quarantine


def write_csv(path, *rows, header="path,reason"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def clips(tmp_path):
    write_manifest(tmp_path, 4, num_frames=2, height=16, width=16)
    return tmp_path


def names(manifest):
    return [row.path.rpartition("/")[2] for row in manifest.rows]


@pytest.mark.slow
def test_a_fit_with_a_quarantine_is_that_of_a_clean_set(tmp_path, capsys):
    """Check, fit, and the same fit where the broken files never were: each loss is equal to the last bit."""
    videos = write_videos(tmp_path / "clips", 8, num_frames=6, height=24, width=24)
    broken = write_broken(tmp_path / "clips")
    assert main(["data", "check", str(tmp_path / "clips"), "--out", str(tmp_path / "check")]) == 0
    recipe = tiny_recipe(tmp_path, tmp_path / "clips", root=tmp_path / "runs")
    argv = ["fit", "--config", str(recipe), "--data.reading.max_failures", "0"]
    assert main(argv) == 2  # the broken files are in the way
    assert main([*argv, "--data.reading.quarantine", str(tmp_path / "check")]) == 0
    for path in broken:
        path.unlink()
    assert main(argv) == 0
    losses = []
    runs = sorted((tmp_path / "runs").glob("version_*/result.json"))
    for run in runs[-2:]:
        assert json.loads(run.read_text())["failed_clips"] == 0
        with (run.parent / "metrics.csv").open() as file:
            losses.append([row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]])
    assert len(runs) >= 2 and len(losses[0]) > 3 and losses[0] == losses[1]
    assert len(videos) == 8


def test_rows_are_left_out_by_file_and_by_part(clips, caplog):
    parts = write_csv(
        clips / "parts.csv",
        "train/clip_000.mp4,0,0.5",
        "train/clip_000.mp4,0.5,1",
        "train/clip_001.mp4,,",
        "./train/clip_002.mp4,0,1",
        "train/clip_003.mp4,,1",
        header="path,start,end",
    )
    manifest = read_manifest(parts)
    banned = write_csv(
        clips / "q.csv",
        f"{clips}/train/clip_000.mp4,empty,0.5,1.0",
        f"{clips}/train/../train/clip_002.mp4,broken,,",
        "train/clip_003.mp4,by the manifest's own path,,1.0",
        header="path,reason,start,end",
    )
    with caplog.at_level("INFO", logger="vjepa"):
        kept = Quarantine(banned).without(manifest)
    assert [(row.line, row.start) for row in kept.rows] == [(2, 0.0), (4, None)]
    assert "3 of 5 rows" in caplog.text
    assert row_identities(kept).tolist() == row_identities(manifest)[[0, 2]].tolist()


def test_the_list_of_a_run_serves_too(clips, monkeypatch):
    monkeypatch.chdir(clips)
    data = VideoDataModule(train="train.csv")
    data.setup("fit")
    data.ledger.reasons["train/clip_001.mp4"] = "broken"  # a run in this folder names files from here
    data.ledger.write("failures.csv")
    kept = Quarantine("failures.csv").without(read_manifest("train.csv"))
    assert names(kept) == ["clip_000.mp4", "clip_002.mp4", "clip_003.mp4"]


def test_training_and_validation_are_both_cleaned_and_unknown_files_are_counted(clips, caplog):
    write_manifest(clips, 2, name="val.csv", num_frames=2, height=16, width=16)
    banned = write_csv(clips / "q.csv", "train/clip_000.mp4,x", "val/clip_001.mp4,x", "elsewhere.mp4,x")
    data = VideoDataModule(
        train=str(clips / "train.csv"),
        val=str(clips / "val.csv"),
        reading=Reading(quarantine=str(banned)),
    )
    data.setup("fit")
    assert len(data.train_manifest) == 3 and names(data.val_manifest) == ["clip_000.mp4"]
    assert data.train_manifest.label_names == ("left", "right")
    (warning,) = (r.getMessage() for r in caplog.records if "are in no manifest" in r.getMessage())
    assert "1 of 3 entries" in warning and "elsewhere.mp4" in warning


def test_urls_and_members_of_shards_are_compared_as_they_are(tmp_path):
    manifest = read_manifest(write_csv(tmp_path / "m.csv", "s3://b/a.mp4", "s3://b/c.mp4", header="path"))
    banned = write_csv(tmp_path / "q.csv", "s3://b/a.mp4,broken")
    assert [row.path for row in Quarantine(banned).without(manifest).rows] == ["s3://b/c.mp4"]


def test_wrong_quarantines_are_refused_with_advice_that_works(clips):
    with pytest.raises(ManifestError, match="Give the folder that `vjepa data check --out` wrote to"):
        Quarantine(clips / "none")
    wrong = write_csv(clips / "q.csv", "a.mp4,x", header="file,reason")
    with pytest.raises(
        ManifestError, match=r"q.csv:1: missing column 'path'. Begin the file with the header"
    ):
        Quarantine(wrong)
    Quarantine(write_csv(wrong, "a.mp4,x"))
    write_csv(wrong, "a.mp4,soon", header="path,start")
    with pytest.raises(ManifestError, match=r"q.csv:2: .*'soon'. Give start and end in seconds"):
        Quarantine(wrong)
    all_of_it = write_csv(clips / "q.csv", *(f"train/clip_00{i}.mp4,x" for i in range(4)))
    with pytest.raises(ManifestError, match="all rows are in quarantine"):
        Quarantine(all_of_it).without(read_manifest(clips / "train.csv"))
