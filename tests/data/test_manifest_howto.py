import json
import re
from pathlib import Path

from tests.videos import write_video
from vjepa.data import read_manifest

README = Path(__file__).parents[2] / "data_manifests" / "README.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_kinetics_block_makes_manifests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k400" / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        rows = "label,youtube_id,time_start,time_end,split\n"
        rows += f"air drumming,abc,3,13,{split}\nabseiling,gone,3,13,{split}\n"
        (tmp_path / "k400" / "annotations" / f"{split}.csv").write_text(rows)
        write_video(tmp_path / "k400" / split / "abc_000003_000013.mp4", num_frames=2, height=16, width=16)
    exec(compile(blocks()[0], str(README), "exec"), {})
    for split in ("train", "val"):
        manifest = read_manifest(f"k400_{split}.csv", root="k400")
        assert len(manifest) == 1 and manifest.label_names == ("air drumming",)


def test_ssv2_block_makes_manifests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ssv2" / "labels").mkdir(parents=True)
    write_video(tmp_path / "ssv2" / "20bn-something-something-v2" / "7.mp4", num_frames=2).rename(
        tmp_path / "ssv2" / "20bn-something-something-v2" / "7.webm"
    )
    for name in ("train", "validation"):
        clips = [{"id": "7", "template": "Pushing [something] from left to right"}]
        (tmp_path / "ssv2" / "labels" / f"{name}.json").write_text(json.dumps(clips))
    exec(compile(blocks()[1], str(README), "exec"), {})
    manifest = read_manifest("ssv2_val.csv", root="ssv2")
    assert manifest.label_names == ("Pushing something from left to right",)
