"""Our own checkpoints: what is written comes back to the bit, and what does not fit is refused by name."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

import vjepa
from vjepa.checkpoints import CheckpointError, load_encoder, load_predictor, save_folder
from vjepa.checkpoints.strict import key_diff
from vjepa.files import replacing

SETTINGS = {
    "img_size": (16, 32),
    "patch_size": 8,
    "num_frames": 4,
    "embed_dim": 24,
    "depth": 1,
    "num_heads": 2,
}


class Payload:
    """What a hostile pickle does when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def networks():
    torch.manual_seed(0)
    encoders = [vjepa.VideoEncoder(**SETTINGS, position="sincos").eval() for _ in range(2)]
    return *encoders, vjepa.Predictor(24, embed_dim=24, depth=1, num_heads=2).eval()


@pytest.fixture
def folder(tmp_path, networks):
    target, context, predictor = networks
    return save_folder(tmp_path / "export", target, context_encoder=context, predictor=predictor)


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_networks_come_back_whole(folder, networks):
    target, context, predictor = networks
    assert_same(load_encoder(folder), target)
    assert_same(load_encoder(folder, which="context"), context)
    assert_same(load_predictor(folder), predictor)
    loaded = load_encoder(folder)
    assert not loaded.training and loaded.config == target.config
    assert all(p.requires_grad for p in loaded.parameters())
    assert json.loads((folder / "config.json").read_text())["encoder"]["img_size"] == [16, 32]


def test_save_pretrained(networks, tmp_path):
    folder = networks[0].save_pretrained(tmp_path / "new" / "folder")
    assert_same(vjepa.load_encoder(folder), networks[0])
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "encoder.safetensors"]
    assert all(p.stat().st_mode & 0o044 for p in folder.iterdir())
    with pytest.raises(CheckpointError, match="holds an encoder alone|has no predictor;"):
        load_predictor(folder)
    with pytest.raises(CheckpointError, match="no context_encoder; it holds encoder"):
        load_encoder(folder, which="context")


def test_overrides_take_the_place_of_what_is_stored(folder):
    assert load_encoder(folder, num_heads=4).num_heads == 4
    with pytest.raises(CheckpointError, match="other shape: .*expected"):
        load_encoder(folder, embed_dim=48)
    with pytest.raises(CheckpointError, match="VideoEncoder has no argument 'no_such'"):
        load_encoder(folder, no_such=1)


@pytest.mark.parametrize("change", ["missing", "not expected", "other shape"])
def test_keys_that_do_not_fit_are_named_and_nothing_is_loaded(folder, change):
    file = folder / "encoder.safetensors"
    tensors = load_file(file)
    if change == "missing":
        del tensors["norm.bias"]
    elif change == "not expected":
        tensors["extra.bias"] = torch.zeros(1)
    else:
        tensors["norm.bias"] = torch.zeros(3)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"{change}: (norm|extra).bias"):
        load_encoder(folder)


def test_many_keys_are_counted():
    keys = {f"k{i}": torch.zeros(1) for i in range(6)}
    assert key_diff(keys, {}) == "missing: k0, k1, k2, k3 and 2 more"
    assert key_diff(keys, keys) == ""


def test_broken_files_are_named(folder, tmp_path):
    file = folder / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="encoder.safetensors is not a complete safetensors file"):
        load_encoder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json:1:2: not JSON"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 3}))
    with pytest.raises(CheckpointError, match="does not describe an encoder"):
        load_encoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        load_encoder(folder)
    with pytest.raises(FileNotFoundError, match="Give a folder written by vjepa fit"):
        load_encoder(tmp_path / "nowhere")


def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "bad.ckpt", tmp_path / "trace"
    for write in (torch.save, lambda content, to: to.write_bytes(pickle.dumps(content))):
        write({"vjepa": {}, "state_dict": {}, "x": Payload(trace)}, path)
        with pytest.raises(
            CheckpointError, match="cannot be opened safely|not a checkpoint that can be opened"
        ):
            load_encoder(path)
    assert not trace.exists()


def test_a_foreign_file_is_refused(tmp_path):
    torch.save({"model": {"w": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(
        CheckpointError, match="not a checkpoint of a vjepa run; it holds model. `vjepa inspect`"
    ):
        load_encoder(tmp_path / "other.pt")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_the_folder_of_a_run_is_told_from_its_networks(tmp_path):
    with pytest.raises(CheckpointError, match="not a folder of networks.$"):
        load_encoder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(CheckpointError, match="give .*last.ckpt"):
        load_encoder(tmp_path)
    vjepa.VideoEncoder(**SETTINGS).save_pretrained(tmp_path / "export")
    with pytest.raises(CheckpointError, match="give (.*export)") as error:
        load_encoder(tmp_path)
    load_encoder(str(error.value).split("give ")[1].rstrip("."))


def test_an_encoder_of_before_with_pixels_left_over_opens(tmp_path, caplog):
    folder = vjepa.VideoEncoder(**SETTINGS).save_pretrained(tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    native = config["encoder"]["img_size"]
    config["encoder"]["img_size"] = [side + 3 for side in native]
    (folder / "config.json").write_text(json.dumps(config))
    assert tuple(vjepa.load_encoder(folder).config["img_size"]) == tuple(native)
    assert "is taken as" in caplog.text
