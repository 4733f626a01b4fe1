"""Features of real video files, some of them broken."""

import copy
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vjepa
import vjepa.features
from tests.features.given import extract
from tests.videos import write_broken, write_manifest, write_video, write_videos
from vjepa.checkpoints import CheckpointError, save_folder
from vjepa.commands.app import main
from vjepa.features import FeaturesError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("extraction")


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 8, "num_frames": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    return [vjepa.VideoEncoder(**settings).eval() for _ in range(2)]


@pytest.fixture(scope="module")
def encoder(folder, networks):
    return str(save_folder(folder / "export", networks[0], context_encoder=networks[1]))


@pytest.fixture(scope="module")
def manifest(folder):
    return str(write_manifest(folder / "clips", 6, num_frames=12))


def read(out):
    return load_file(out / "features.safetensors"), json.loads((out / "features.json").read_text())


def test_features_are_those_of_the_encoder_clip_by_clip(encoder, manifest, networks, tmp_path):
    extract(encoder=encoder, data=manifest, out=tmp_path, pool="none", batch_size=4)
    tensors, about = read(tmp_path)
    assert tensors["features"].shape == (6, 64, 24) and tensors["index"].tolist() == list(range(6))
    assert tensors["label"].tolist() == [0, 1] * 3 and about["label_names"] == ["left", "right"]
    transform = vjepa.default_transform(networks[0])
    for row, known in enumerate(vjepa.features.open(tmp_path).rows):
        clip = vjepa.read_clip(known.path, num_frames=8, fps=None, start_seconds=known.start)
        assert clip.timestamps[-1].item() == pytest.approx(known.end)
        with torch.no_grad():
            expected = networks[0](transform(clip)[None])[0]
        torch.testing.assert_close(tensors["features"][row], expected, atol=2e-5, rtol=1e-4)


def test_pooled_features_are_the_mean_token(encoder, manifest, tmp_path):
    for pool in ("mean", "none"):
        extract(encoder=encoder, data=manifest, out=tmp_path / pool, pool=pool)
    pooled, tokens = (read(tmp_path / pool)[0]["features"] for pool in ("mean", "none"))
    torch.testing.assert_close(pooled, tokens.mean(1))


@pytest.mark.parametrize(
    "other",
    [{"which": "context"}, {"precision": "bf16"}, {"fps": 4.0}, {"num_frames": 4}, {"decoder": "decord"}],
)
def test_each_argument_changes_the_outcome_or_only_the_way(encoder, manifest, tmp_path, other):
    if other.get("decoder") == "decord":
        pytest.importorskip("decord")
    extract(encoder=encoder, data=manifest, out=tmp_path / "a")
    extract(encoder=encoder, data=manifest, out=tmp_path / "b", **other)
    (a, _), (b, about) = read(tmp_path / "a"), read(tmp_path / "b")
    assert torch.equal(a["features"], b["features"]) == ("decoder" in other)
    assert about["preprocessing"]["num_frames"] == other.get("num_frames", 8)
    if "precision" in other:
        torch.testing.assert_close(a["features"], b["features"], atol=0.1, rtol=0.1)


@pytest.mark.slow
def test_workers_change_nothing(encoder, manifest, tmp_path):
    extract(encoder=encoder, data=manifest, out=tmp_path / "a", batch_size=2)
    extract(encoder=encoder, data=manifest, out=tmp_path / "b", batch_size=2, num_workers=1)
    assert torch.equal(read(tmp_path / "a")[0]["features"], read(tmp_path / "b")[0]["features"])


def test_broken_videos_are_listed_and_the_rest_is_done(encoder, tmp_path, networks):
    write_videos(tmp_path / "mixed", 3, num_frames=12)
    broken = write_broken(tmp_path / "mixed")
    report = extract(encoder=encoder, data=str(tmp_path / "mixed"), out=tmp_path / "out", batch_size=2)
    tensors, about = read(tmp_path / "out")
    failed = {failure["path"] for failure in about["failures"]}
    rows = vjepa.features.open(tmp_path / "out").rows
    assert len(tensors["features"]) == len(rows) == report.figures["num_clips"]
    assert report.exit_code == 2
    assert {str(path) for path in broken[:2]} <= failed and all(f["reason"] for f in about["failures"])
    assert report.figures["num_clips"] + report.figures["num_failures"] == 6
    assert "label" not in tensors
    assert not failed & {row.path for row in rows}


def test_nothing_readable_is_an_error_and_leaves_no_file(encoder, tmp_path):
    empty, text, _ = write_broken(tmp_path / "bad")
    (tmp_path / "list.csv").write_text(f"path\n{empty}\n{text}\n")
    with pytest.raises(FeaturesError, match=r"none of 2 clips can be read: .*empty.mp4"):
        extract(encoder=encoder, data=str(tmp_path / "list.csv"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_diverged_encoder_is_refused(manifest, networks, tmp_path):
    broken = copy.deepcopy(networks[0])
    torch.nn.init.constant_(broken.norm.weight, float("nan"))
    path = str(broken.save_pretrained(tmp_path / "nan"))
    with pytest.raises(
        CheckpointError, match="NaN or infinite numbers in norm.weight.*use an earlier checkpoint"
    ):
        extract(encoder=path, data=manifest, out=tmp_path / "out")


def test_one_video_on_the_command_line(encoder, tmp_path, capsys):
    video = write_video(tmp_path / "a.mp4", num_frames=12)
    assert main(["extract", "--encoder", encoder, "--data", str(video), "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["shape"] == [1, 24] and result["settings"]["pool"] == "mean"
    assert (
        main(["extract", "--encoder", encoder, "--data", str(video), "--out", "x", "--batch_size", "0"]) == 2
    )
    assert "give 1 and 0, or more" in capsys.readouterr().err


def test_label_column(encoder, manifest, tmp_path):
    table = tmp_path / "t.csv"
    paths = write_videos(tmp_path / "v", 2, num_frames=8)
    table.write_text("path,label,event\n" + "\n".join(f"{p},same,{p.stem}" for p in paths) + "\n")
    extract(encoder=encoder, data=str(table), out=tmp_path / "out", label="event")
    assert read(tmp_path / "out")[1]["label_names"] == ["clip_000", "clip_001"]


def test_short_videos_and_files_without_a_picture_are_one_line_each(encoder, tmp_path, caplog):
    write_video(tmp_path / "v" / "long.mp4", num_frames=24)
    short = write_video(tmp_path / "v" / "short.mp4", num_frames=8)
    sound = tmp_path / "v" / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    arguments = ["--encoder", encoder, "--data", str(tmp_path / "v"), "--out", str(tmp_path / "out")]
    assert (
        main(["extract", *arguments, "--window", "1.5", "--stride", "0.5"]) == 2
    )  # some failed, the rest is done
    lines = [record.getMessage() for record in caplog.records if "cannot read" in record.getMessage()]
    assert len(lines) == 2
    assert f"cannot read {short}: 1.00 s of video, a window is 1.5 s. Lower --window." in lines
    assert any(f"cannot read {sound}: holds no video" in line for line in lines)
    assert [row.start for row in vjepa.features.open(tmp_path / "out").rows] == [0.0, 0.5, 1.0, 1.5]
    broken = [str(tmp_path / "v" / name) for name in ("short.mp4", "sound.mp4")]
    assert (
        main(["extract", *arguments, "--window", "1.5", "--stride", "0.5"]) == 2
    )  # nothing to do, the same code
    assert [Path(path).unlink() for path in broken] == [None, None]
    whole = [*arguments[:-1], str(tmp_path / "whole"), "--window", "1.5"]
    assert main(["extract", *whole]) == 0


def test_the_windows_are_those_of_classify(encoder, tmp_path):
    from vjepa.features.windows import Windows
    from vjepa.probes.videos import window_rows

    videos = [
        str(write_video(tmp_path / "v" / f"{name}.mp4", num_frames=count))
        for name, count in (("a", 27), ("b", 5))
    ]
    for tail, short in (("align", "repeat"), ("drop", "repeat")):
        out = tmp_path / f"{tail}-{short}"
        extract(encoder=encoder, data=str(tmp_path / "v"), out=out, window=1.5, tail=tail, short=short)
        rows = window_rows(videos, Windows(1.5, tail=tail, short=short), decoder="auto").complete
        made = [(row.path, row.start) for row in vjepa.features.open(out).rows]
        assert made == [(row.path, pytest.approx(row.start, abs=0.07)) for row in rows]
        assert len(made) == (4 if tail == "align" else 3)
