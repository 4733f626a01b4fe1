"""Cached tokens: what a second sweep reads, after kills, by several processes; and what makes them others."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.probes.test_commands import QUICK, tiny_encoder, write_split
from vjepa.commands.probe import probe
from vjepa.data.manifests.reader import read_manifest
from vjepa.models import VideoEncoder
from vjepa.models.files import save_folder
from vjepa.probes import ClipLayout, ProbeError, eval_clips, extract_features
from vjepa.probes.cache import Shard, TokenFile, cache_folder
from vjepa.probes.clips import ClipPlan
from vjepa.types import ClipFailure

PREPROCESSING = {"num_frames": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    write_split(folder, "train", 12, 0)
    write_split(folder, "val", 6, 100)
    save_folder(folder / "encoder", tiny_encoder(0))
    return folder


def run(place, **options):
    files = {"encoder": place / "encoder", "train": place / "train.csv", "val": place / "val.csv"}
    given = {name: str(path) for name, path in files.items()}
    given |= {"grid": QUICK, "device": "cpu", "random_init": False}
    return probe(**given | options).figures


def test_a_second_sweep_decodes_and_encodes_nothing(place, tmp_path, monkeypatch):
    first = run(place, out=tmp_path / "a", cache=tmp_path / "c")
    assert first["top1"] == run(place, out=tmp_path / "b")["top1"]
    assert len(list((tmp_path / "c").iterdir())) == 2

    def refuse(*args, **kwargs):
        raise AssertionError("the encoder was asked again")

    monkeypatch.setattr(VideoEncoder, "forward_intermediates", refuse)
    for label in ("label", "side"):  # the tokens serve any column
        run(place, out=tmp_path / "d", cache=tmp_path / "c", label=label)
    assert run(place, out=tmp_path / "d", cache=tmp_path / "c")["history"] == first["history"]


def test_augmented_views_are_cached_beside_the_plain_one(place, tmp_path):
    run(place, out=tmp_path / "a", cache=tmp_path / "c", augment=2)
    sizes = sorted(p.stat().st_size for p in (tmp_path / "c").glob("*/tokens.fp16"))
    assert sizes[1] == 3 * 2 * sizes[0]  # 12 training videos, plain and twice augmented, 6 of validation
    before = len(list((tmp_path / "c").iterdir()))
    run(place, out=tmp_path / "a", cache=tmp_path / "c", augment=2, seed=1)
    assert len(list((tmp_path / "c").iterdir())) == before + 1


def test_whatever_tokens_depend_on_is_in_their_key(place):
    manifest = read_manifest(place / "val.csv")
    other = read_manifest(place / "train.csv")
    made = [
        cache_folder(place / "keys", *given)
        for given in [
            (tiny_encoder(0), manifest, PREPROCESSING),
            (tiny_encoder(1), manifest, PREPROCESSING),
            (tiny_encoder(0), other, PREPROCESSING),
            (tiny_encoder(0), manifest, {"num_frames": 2}),
        ]
    ]
    assert len(set(made)) == 4
    assert cache_folder(place / "keys", tiny_encoder(0), manifest, PREPROCESSING) == made[0]
    labelled = read_manifest(place / "val.csv", label_column="side")
    assert cache_folder(place / "keys", tiny_encoder(0), labelled, PREPROCESSING) == made[0]
    assert json.loads((made[0] / "about.json").read_text())["num_rows"] == 6
    os.utime(manifest.rows[0].path, (1, 1))  # the video is another now
    assert cache_folder(place / "keys", tiny_encoder(0), manifest, PREPROCESSING) != made[0]


def test_the_cut_of_clips_is_in_the_key():
    plans = [
        ClipPlan(),
        ClipPlan(frame_step=4),
        ClipPlan(fps=4.0),
        ClipPlan(layout=ClipLayout(levels=(0,))),
        ClipPlan(layout=ClipLayout(segments=2)),
    ]
    keys = [str(plan.preprocessing(training=True)) for plan in plans]
    assert len(set(keys)) == len(keys)
    views = ClipPlan(layout=ClipLayout(views=3))  # only of the test
    assert views.preprocessing(training=True) == ClipPlan().preprocessing(training=True)
    assert views.preprocessing(training=False) != ClipPlan().preprocessing(training=False)


def test_shards_fill_one_file_and_a_cut_journal_costs_one_batch(tmp_path):
    tokens = torch.arange(5 * 6.0).reshape(5, 2, 3).half()
    files = [TokenFile(tmp_path, 5, Shard(rank, 2)) for rank in range(2)]
    failure = ClipFailure("x.mp4", "no video stream")
    files[0].add([0, 2], tokens[[0, 2]], {})
    files[1].add([1, 3], tokens[[1]], {3: failure})
    files[0].add([4], tokens[[4]], {})
    assert files[0].missing() == files[1].missing() == []
    assert torch.equal(files[1].tokens()[[0, 1, 2, 4]], tokens[[0, 1, 2, 4]])
    assert files[0].failures() == {3: failure}
    (journal,) = [p for p in tmp_path.glob("journal-*") if '"done": [4]' in p.read_text()]
    journal.write_text(journal.read_text()[:-3])
    assert TokenFile(tmp_path, 5).missing() == [4]


def test_damaged_tokens_are_computed_again(tmp_path, caplog):
    tokens = torch.arange(5 * 6.0).reshape(5, 2, 3).half()
    file = TokenFile(tmp_path, 5)
    file.add([0, 1, 2], tokens[:3], {})
    file.add([3, 4], tokens[3:], {})
    path = tmp_path / "tokens.fp16"
    whole = path.read_bytes()
    path.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    assert TokenFile(tmp_path, 5).missing() == [2]
    assert TokenFile(tmp_path, 5, Shard(1, 2)).missing() == []  # of another process
    assert "tokens.fp16: 1 clips are damaged and computed again" in caplog.text
    path.write_bytes(whole[:-1])
    assert TokenFile(tmp_path, 5).missing() == [0, 1, 2, 3, 4]
    file.add([0, 1, 2, 3, 4], tokens, {})
    assert path.read_bytes() == whole and TokenFile(tmp_path, 5).missing() == []


def test_missing_processes_are_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr("vjepa.probes.cache.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("vjepa.probes.cache.POLL_SECONDS", 0.02)
    with pytest.raises(ProbeError, match="1 of 2 clips are missing .* one alone, with --world_size 1"):
        file = TokenFile(tmp_path, 2, Shard(0, 2))
        file.add([0], torch.zeros(1, 2, 3).half(), {})
        file.wait()
    alone = TokenFile(tmp_path, 2)
    alone.add(alone.missing(), torch.zeros(1, 2, 3).half(), {})
    alone.wait()


def test_ranks_and_their_cache(place, tmp_path, monkeypatch):
    with pytest.raises(ProbeError, match="ranks go from 0 to 1"):
        Shard(2, 2)
    with pytest.raises(ProbeError, match="give one with --cache"):
        run(place, out=tmp_path, rank=1, world_size=2)
    with monkeypatch.context() as patch:
        patch.setattr(TokenFile, "wait", lambda self: None)
        share = run(place, out=tmp_path, cache=tmp_path / "c", rank=1, world_size=2)
    assert share == {"rank": 1, "world_size": 2}
    together = run(place, out=tmp_path / "a", cache=tmp_path / "c", world_size=2)
    alone = run(place, out=tmp_path / "a", cache=tmp_path / "d")
    assert together["top1"] == alone["top1"] and together["num_train"] == alone["num_train"]


def test_failures_are_remembered(place, tmp_path):
    (place / "broken.mp4").write_bytes(b"no video")
    manifest = place / "broken.csv"
    manifest.write_text((place / "train.csv").read_text() + "broken.mp4,dark,l,same\n")
    found = [run(place, out=tmp_path, cache=tmp_path / "c", train=str(manifest)) for _ in range(2)]
    assert found[0]["failures"] == found[1]["failures"] and found[0]["num_failures"] == 1
    assert found[0]["num_train"] == found[1]["num_train"] == 12


KILLED = """
import sys, time
import torch
from vjepa.data.manifests.reader import read_manifest
from vjepa.models import VideoEncoder
from vjepa.probes import eval_clips, extract_features
from vjepa.checkpoints import load_encoder
from vjepa.probes.cache import TokenFile
manifest, model = read_manifest(sys.argv[1]), load_encoder(sys.argv[2])
clips = eval_clips(manifest, model)
class Slow(TokenFile):
    def add(self, *given):
        super().add(*given)
        time.sleep(0.05)
from pathlib import Path
extract_features(model, clips, batch_size=1, cached=Slow(Path(sys.argv[3]), len(clips)))
"""


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_written(place, tmp_path):
    arguments = [sys.executable, "-c", KILLED, place / "train.csv", place / "encoder", tmp_path]
    process = subprocess.Popen(arguments)
    while not list(tmp_path.glob("journal-*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    manifest, model = read_manifest(place / "train.csv"), tiny_encoder(0)
    clips = eval_clips(manifest, model)
    file = TokenFile(tmp_path, len(clips))
    assert 0 < len(file.missing()) < 12
    resumed = extract_features(model, clips, batch_size=1, cached=file)
    assert torch.equal(resumed.tokens, extract_features(model, clips, batch_size=1).tokens)
