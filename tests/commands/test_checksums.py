"""`vjepa inspect --verify`: one flipped bit in a file of networks, features or shards is found."""

import json

import pytest
from safetensors.torch import load_file, save_file

import vjepa
from tests.checkpoints.given import WIDTH, tiny_encoder, tiny_predictor, tiny_probe, training_file
from tests.videos import write_manifest
from vjepa.checkpoints import save_folder, save_huggingface
from vjepa.commands.app import main
from vjepa.commands.inspect import inspect
from vjepa.data import read_manifest
from vjepa.data.shards.writer import plan_shards, write_shard, write_shard_index, written_shard
from vjepa.features import ClipSpec
from vjepa.features.reader import ABOUT, INDEX
from vjepa.files import file_crc32
from vjepa.probes import ProbeError
from vjepa.probes.classifier import open_classifier
from vjepa.probes.files import NetworkReference, ProbeCard, save_probe


def flip(file, place):
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_networks_are_compared_with_what_was_written(tmp_path, caplog):
    folder = save_folder(tmp_path / "net", tiny_encoder(), predictor=tiny_predictor())
    save_huggingface(tmp_path / "hf", tiny_encoder())
    training_file(tmp_path / "meta.pt")
    save_file(load_file(folder / "encoder.safetensors"), tmp_path / "foreign.safetensors")
    for place, checked in (("net", 2), ("hf", 1), ("meta.pt", 1), ("foreign.safetensors", 0)):
        figures = inspect(ckpt=tmp_path / place, verify=True).figures
        assert figures["checked"] == checked and not figures["damaged"]
    flip(folder / "encoder.safetensors", -300)
    flip(tmp_path / "meta.pt", 20_000)
    for file in (folder / "encoder.safetensors", tmp_path / "meta.pt"):
        assert main(["inspect", str(file), "--verify"]) == 2
        assert f"{file.name} is damaged: the checksum of" in caplog.text
    assert vjepa.load_encoder(folder)  # opening does not compare: it would take as long as reading


def test_a_probe_is_compared_when_it_classifies(tmp_path):
    encoder = tiny_encoder()
    save_folder(tmp_path / "net", encoder)
    card = ProbeCard(
        "attentive", tuple("abcde"), ClipSpec.for_encoder(encoder), NetworkReference.of(encoder, "../net")
    )
    save_probe(tmp_path / "probe", tiny_probe(), card)
    assert open_classifier(tmp_path / "probe").head.linear.in_features == WIDTH
    flip(tmp_path / "probe" / "probe.safetensors", -300)
    with pytest.raises(
        ProbeError, match="probe.safetensors is damaged: the checksum of its tensors is wrong"
    ):
        open_classifier(tmp_path / "probe")


def test_features_are_compared_with_what_was_written(tmp_path):
    checksums = {}
    for name in ("features.npy", INDEX):
        (tmp_path / name).write_bytes(name.encode())
        with (tmp_path / name).open("rb") as file:
            checksums[name] = file_crc32(file)
    about = {
        "shape": [1, 2],
        "label_names": [],
        "dtype": "fp32",
        "format": "npy",
        "pool": "mean",
        "probe": None,
    }
    about |= {"decoder": "auto", "precision": "fp32", "crc32": checksums}
    about |= {"encoder": {"path": "e", "digest": "0", "which": "target"}}
    (tmp_path / ABOUT).write_text(json.dumps(about))
    assert inspect(ckpt=tmp_path, verify=True).figures == {"files": 2, "checked": 2, "damaged": []}
    flip(tmp_path / "features.npy", 3)
    assert inspect(ckpt=tmp_path, verify=True).figures["damaged"] == [str(tmp_path / "features.npy")]


def test_a_damaged_shard_is_found_and_written_again(tmp_path):
    manifest = read_manifest(write_manifest(tmp_path / "clips", 2, num_frames=2, height=16, width=16))
    out = str(tmp_path / "shards")
    options = {"max_bytes": 10**9, "clips_per_shard": None, "decoder": "auto", "seed": 0}
    (plan,) = plan_shards(manifest, out=out, name="clips", **options)
    shard = write_shard(plan)
    tar = tmp_path / "shards" / shard.name
    whole = tar.read_bytes()
    write_shard_index(plan.out, shards=[shard], plans=[plan])
    assert inspect(ckpt=tmp_path / "shards", verify=True).figures["checked"] == 1
    flip(tar, 1000)
    assert inspect(ckpt=tmp_path / "shards" / "shards.json", verify=True).figures["damaged"] == [str(tar)]
    assert written_shard(plan) is None
    assert write_shard(plan) == shard and tar.read_bytes() == whole
