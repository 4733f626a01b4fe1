"""`vjepa inspect`: what a checkpoint holds, ours or not, whole or broken."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

import vjepa
from tests.checkpoints.given import hf_case, tiny_encoder, training_file
from tests.checkpoints.test_native import SETTINGS, Payload
from tests.training.runs import RUN_WARNINGS, clip_loader, quiet_trainer, tiny_module
from vjepa.checkpoints import CheckpointError, save_folder
from vjepa.commands.app import main
from vjepa.commands.inspect import inspect


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    target, context = (vjepa.VideoEncoder(**SETTINGS) for _ in range(2))
    predictor = vjepa.Predictor(24, embed_dim=24, depth=1, num_heads=2)
    torch.nn.init.ones_(predictor.mask_tokens[0])
    return save_folder(tmp_path / "export", target, context_encoder=context, predictor=predictor)


def test_a_folder_of_ours(folder):
    figures = inspect(ckpt=folder).figures
    encoder, predictor = vjepa.load_encoder(folder), vjepa.load_predictor(folder)
    assert (figures["embed_dim"], figures["depth"], figures["num_heads"], figures["patch_size"]) == (
        24,
        1,
        2,
        8,
    )
    assert figures["grid"] == "2 x 2 x 4" and figures["precision"] == "float32" and figures["finite"]
    assert figures["encoder_parameters"] == encoder.num_parameters
    assert figures["predictor_parameters"] == predictor.num_parameters
    assert figures["mask_tokens_all_zero"] == [1] and "1 is all zero" in figures["mask_tokens_note"]
    context = vjepa.load_encoder(folder, which="context")
    apart = [(a - b).abs().max() for a, b in zip(encoder.parameters(), context.parameters(), strict=True)]
    assert figures["max_difference_context_target"] == pytest.approx(max(apart).item())


def test_an_encoder_alone(folder, tmp_path):
    alone = vjepa.load_encoder(folder)
    torch.nn.init.constant_(alone.norm.bias, float("inf"))
    figures = inspect(ckpt=alone.save_pretrained(tmp_path / "alone")).figures
    assert not figures["finite"]
    assert not {"predictor_parameters", "max_difference_context_target"} & figures.keys()


@pytest.mark.filterwarnings(*RUN_WARNINGS)
def test_a_checkpoint_of_a_run(tmp_path):
    trainer = quiet_trainer(tmp_path)
    trainer.fit(tiny_module(), clip_loader(6, 2))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    figures = inspect(ckpt=tmp_path / "run.ckpt").figures
    assert figures["step"] == 3 and figures["optimizer_state"]
    assert figures["max_difference_context_target"] > 0
    assert figures["mask_tokens_all_zero"] == [1]  # one mask strategy trains the first of two


def test_foreign_files_are_listed_and_not_called_ours(tmp_path):
    weights = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(3).half()}
    torch.save({"model": weights, "epoch": 7}, tmp_path / "other.pt")
    save_file(weights, tmp_path / "other.safetensors")
    report = inspect(ckpt=tmp_path / "other.pt")
    assert report.rows == [
        {"entry": "model", "holds": "dict of 2, 2 tensors"},
        {"entry": "epoch", "holds": "7"},
    ]
    assert "not a native checkpoint" in report.figures["format"] and report.figures["numbers"] == 9
    report = inspect(ckpt=tmp_path / "other.safetensors")
    assert report.figures["tensors"] == 2 and report.figures["precision"] == "float16, float32"
    assert {"entry": "a.weight", "holds": "float32 (2, 3)"} in report.rows


def test_a_file_of_ours_points_to_its_folder(folder):
    assert "inspect the folder" in inspect(ckpt=folder / "encoder.safetensors").figures["format"]


def broken(kind, path):
    """A bad file of some kind, and the error that is due."""
    torch.save({"model": torch.zeros(1000)}, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "text":
        path.write_text("this is no checkpoint\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "payload":
        path.write_bytes(pickle.dumps({"model": Payload(path.with_suffix(".trace"))}))
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "payload", "no tensors"])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors"])
def test_bad_files_are_one_clear_error(tmp_path, kind, suffix):
    path = tmp_path / f"bad{suffix}"
    broken(kind, path)
    with pytest.raises(CheckpointError, match=f"bad{suffix}") as error:
        inspect(ckpt=path)
    assert len(str(error.value).splitlines()) == 1
    assert not path.with_suffix(".trace").exists()


def test_on_the_command_line(folder, tmp_path, capsys):
    assert main(["inspect", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text())["embed_dim"] == 24
    assert "encoder_parameters" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "nowhere")]) == 2
    assert "Give a folder written by vjepa fit" in capsys.readouterr().err


def test_a_training_file_of_metas(tmp_path):
    training_file(tmp_path / "train.pt", dtype=torch.bfloat16)
    figures = inspect(ckpt=tmp_path / "train.pt").figures
    assert figures["format"] == "Meta checkpoint: `target_encoder`, `encoder`, `predictor`"
    assert figures["family"] == "V-JEPA 2" and figures["position"] == "rope" and figures["epoch"] == 12
    assert figures["left_out"] == ["opt", "scaler", "epoch", "lr"] and figures["precision"] == "bfloat16"
    assert "give num_heads" in figures["num_heads"] and figures["mask_tokens_all_zero"] == []
    assert figures["max_difference_context_target"] > 0 and figures["depth"] == 2


def test_an_encoder_of_vjepa_1_and_one_that_is_neither(tmp_path):
    for position, family in (("sincos", "V-JEPA 1"), ("sincos_plain", "positions sincos_plain")):
        torch.save({"encoder": tiny_encoder(position=position).state_dict()}, tmp_path / "vit.pt")
        figures = inspect(ckpt=tmp_path / "vit.pt").figures
        assert figures["family"] == family and figures["grid"] == "2 x 4 x 4"


def test_a_folder_of_transformers_and_a_probe(tmp_path):
    _, folder = hf_case(tmp_path / "hf", "hf_vjepa2_classification", shards=2)
    figures = inspect(ckpt=folder).figures
    assert figures["format"] == "Hugging Face folder, VJEPA2Model" and figures["num_heads"] == 2
    assert figures["holds"] == "encoder, predictor, probe" and figures["probe_num_classes"] == 7
    probe = vjepa.load_probe(folder)
    assert figures["probe_parameters"] == sum(p.numel() for p in probe.parameters())


def test_an_encoder_of_either_family(tmp_path):
    torch.save(
        {"target_encoder": tiny_encoder(position="sincos", img_size=128).state_dict()}, tmp_path / "vit.pt"
    )
    figures = inspect(ckpt=tmp_path / "vit.pt").figures
    assert figures["family"] == "V-JEPA 1 or V-JEPA 2" and figures["depth"] == 2
    assert "give position='sincos' or position='rope'" in figures["position"]


def test_what_the_classes_of_a_probe_are_called(tmp_path):
    names = {"id2label": {"0": "push", "1": "pull", **{str(i): f"LABEL_{i}" for i in range(2, 7)}}}
    _, folder = hf_case(tmp_path / "hf", "hf_vjepa2_classification", **names)
    assert inspect(ckpt=folder).figures["label_names"][:2] == ["push", "pull"]
    _, folder = hf_case(tmp_path / "unnamed", "hf_vjepa2_classification")
    assert "label_names" not in inspect(ckpt=folder).figures
