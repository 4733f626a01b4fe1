"""Records on disk and in memory: after kills and damage, by several processes; and what makes cached ones others."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import vjepa
from tests.videos import write_manifest
from vjepa.data import read_manifest
from vjepa.data.loading.dataset import VideoClips
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.errors import FeaturesError
from vjepa.features.store import Ranks, RecordStore
from vjepa.features.tokens import cache_folder, tokens_of
from vjepa.types import ClipFailure

TOKENS = torch.arange(5 * 6.0).reshape(5, 2, 3).half()
FAILURE = ClipFailure("x.mp4", "no video stream")


def test_ranks_fill_one_file_and_a_cut_journal_costs_one_batch(tmp_path):
    stores = [RecordStore(tmp_path, num_records=5) for _ in range(2)]
    stores[0].add([0, 2], TOKENS[[0, 2]])
    stores[1].add([1], TOKENS[[1]], failures={3: FAILURE})
    stores[0].add([4], TOKENS[[4]], note={"any": [1]})
    assert [stores[i].missing(Ranks(i, 2).share(5)) for i in range(2)] == [[], []]
    assert torch.equal(stores[1].records()[[0, 1, 2, 4]], TOKENS[[0, 1, 2, 4]])
    assert not stores[1].records()[3].any()
    assert stores[0].failures() == {3: FAILURE}
    assert [entry.note for entry in stores[0].entries() if entry.note] == [{"any": [1]}]
    (journal,) = [p for p in tmp_path.glob("*.jsonl") if '"places": [4]' in p.read_text()]
    journal.write_text(journal.read_text()[:-3])
    again = RecordStore(tmp_path, num_records=5)
    assert again.missing(range(5)) == [4]
    again.add([4], TOKENS[[4]])
    assert RecordStore(tmp_path, num_records=5).missing(range(5)) == []


@pytest.mark.parametrize("num_records", [5, None])
def test_damaged_records_are_made_again(tmp_path, caplog, num_records):
    store = RecordStore(tmp_path, num_records=num_records)
    store.add([0, 1, 2], TOKENS[:3])
    store.add([3, 4], TOKENS[3:])
    path = tmp_path / "records.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    assert store.missing(range(5)) == [2] and store.missing(range(1, 5, 2)) == []
    assert "records.bin: 1 clips are damaged and computed again" in caplog.text
    path.write_bytes(whole[:-1])
    assert store.missing(range(5)) == [4]
    path.unlink()
    assert store.missing(range(5)) == [0, 1, 2, 3, 4]
    store.add([0, 1, 2, 3, 4], TOKENS)
    assert path.read_bytes() == whole and RecordStore(tmp_path).missing(range(5)) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_records_of_any_shape_and_type_come_back(tmp_path, dtype, shape):
    records = torch.randn(4, *shape).to(dtype)
    on_disk, in_memory = RecordStore(tmp_path, name="a"), RecordStore(num_records=4)
    for store in (on_disk, in_memory):
        store.add([2, 0], records[[2, 0]])
        store.add([], None, failures={9: FAILURE})
        store.add([3, 1], records[[3, 1]])
        assert torch.equal(store.records(), records) and store.records().dtype == dtype
        assert store.failures() == {9: FAILURE} and store.missing(range(4)) == []


def test_large_records_in_memory_go_to_a_scratch_file(tmp_path):
    store = RecordStore(num_records=5, max_ram_gb=1e-9, scratch=tmp_path / "s")
    store.add(range(5), TOKENS)
    assert torch.equal(store.records(), TOKENS)
    assert [file.stat().st_size for file in (tmp_path / "s").iterdir()] == [TOKENS.nbytes]
    with pytest.raises(FeaturesError, match="Raise max_ram_gb, or give a scratch folder"):
        RecordStore(num_records=5, max_ram_gb=1e-9).add(range(5), TOKENS)


def test_missing_processes_are_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr("vjepa.features.store.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("vjepa.features.store.POLL_SECONDS", 0.02)
    store = RecordStore(tmp_path, num_records=2)
    store.add([0], TOKENS[:1])
    with pytest.raises(FeaturesError, match="1 of 2 clips are missing .* one alone, with --world_size 1"):
        store.wait()
    store.add([1], TOKENS[1:2])
    store.wait()
    with pytest.raises(FeaturesError, match="ranks are 0 to world_size - 1"):
        Ranks(2, 2)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("twelve"), 12, num_frames=8, height=16, width=16)


def tiny(seed=0):
    torch.manual_seed(seed)
    return vjepa.VideoEncoder(
        img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=2, num_heads=2
    ).eval()


def test_whatever_features_depend_on_is_in_their_key(videos, tmp_path):
    manifest, spec = read_manifest(videos), ClipSpec(num_frames=4).to_json()
    one = read_manifest(manifest.rows[0].path)
    specs = [ClipSpec(num_frames=2), ClipSpec(fps=4.0), ClipSpec(segments=2), ClipSpec(layers=(0,))]
    made = [cache_folder(tmp_path, tiny(), manifest, other.to_json()) for other in specs]
    made += [
        cache_folder(tmp_path, *given) for given in [(tiny(), manifest, spec), (tiny(1), manifest, spec)]
    ]
    made += [cache_folder(tmp_path, tiny(), one, spec)]
    assert len(set(made)) == len(made)
    assert cache_folder(tmp_path, tiny(), manifest, spec) == made[4]
    assert json.loads((made[4] / "about.json").read_text())["num_rows"] == 12
    os.utime(manifest.rows[0].path, (1, 1))  # the video is another now
    assert cache_folder(tmp_path, tiny(), manifest, spec) != made[4]


KILLED = """
import sys, time
from pathlib import Path
from tests.features.test_store import clips_of, tiny
from vjepa.features.store import RecordStore
from vjepa.features.tokens import tokens_of
add = RecordStore.add
RecordStore.add = lambda *given, **named: (add(*given, **named), time.sleep(0.05))
clips, spec = clips_of(sys.argv[1])
tokens_of(tiny(), clips, spec, batch_size=1, store=RecordStore(Path(sys.argv[2]), num_records=12))
"""


def clips_of(videos):
    """Return the clips of a manifest, and how they are cut."""
    spec = ClipSpec.for_encoder(tiny())
    return VideoClips(read_manifest(videos), sampler=spec.sampler(), transform=spec.transform()), spec


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_written(videos, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(videos), str(tmp_path)])
    while not list(tmp_path.glob("*.jsonl")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    clips, spec = clips_of(videos)
    store = RecordStore(tmp_path, num_records=12)
    assert 0 < len(store.missing(range(12))) < 12
    resumed = tokens_of(tiny(), clips, spec, batch_size=1, store=store)
    assert torch.equal(resumed.tokens, tokens_of(tiny(), clips, spec, batch_size=1).tokens)
