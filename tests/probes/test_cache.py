"""Cached tokens: what a second sweep reads, after kills, by several processes; and what makes them others."""

import pytest

from tests.probes.test_commands import QUICK, tiny_encoder, write_split
from tests.probes.verbs import probe
from vjepa.features import FeaturesError, RecordStore
from vjepa.models import VideoEncoder
from vjepa.models.files import save_folder
from vjepa.probes import ProbeError

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
    sizes = sorted(p.stat().st_size for p in (tmp_path / "c").glob("*/records.bin"))
    assert sizes[1] == 3 * 2 * sizes[0]  # 12 training videos, plain and twice augmented, 6 of validation
    before = len(list((tmp_path / "c").iterdir()))
    run(place, out=tmp_path / "a", cache=tmp_path / "c", augment=2, seed=1)
    assert len(list((tmp_path / "c").iterdir())) == before + 1


def test_ranks_and_their_cache(place, tmp_path, monkeypatch):
    with pytest.raises(FeaturesError, match="ranks are 0 to world_size - 1"):
        run(place, out=tmp_path, cache=tmp_path / "c", rank=2, world_size=2)
    with pytest.raises(ProbeError, match="give one with --cache"):
        run(place, out=tmp_path, rank=1, world_size=2)
    with monkeypatch.context() as patch:
        patch.setattr(RecordStore, "wait", lambda self: None)
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
