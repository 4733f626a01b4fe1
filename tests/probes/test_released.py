"""`vjepa.load_probe` also opens what `vjepa probe` wrote, which describes itself."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import vjepa
from tests.checkpoints.given import WIDTH, assert_same_bytes, convert, tiny_encoder, tiny_probe
from tests.reference import reference_case
from vjepa.checkpoints import CheckpointError, save_meta
from vjepa.features import ClipSpec
from vjepa.probes.base import ProbeError, Standardize, StandardizedProbe
from vjepa.probes.files import NetworkReference, ProbeCard, save_probe


@pytest.fixture
def trained(tmp_path):
    encoder = tiny_encoder()
    probe = StandardizedProbe(Standardize(embed_dim=WIDTH), tiny_probe())
    card = ProbeCard(
        kind="attentive",
        label_names=tuple("abcde"),
        clip=ClipSpec.for_encoder(encoder),
        encoder=NetworkReference.of(encoder, "encoder"),
    )
    save_probe(tmp_path / "probe", probe, card)
    return tmp_path / "probe", probe.eval()


@torch.no_grad()
def test_a_probe_trained_here(trained):
    folder, probe = trained
    tokens = torch.randn(2, 6, WIDTH)
    torch.testing.assert_close(vjepa.load_probe(folder)(tokens), probe(tokens), atol=1e-6, rtol=0)


def test_a_probe_trained_here_with_weights_that_are_no_numbers(trained):
    folder, probe = trained
    file = folder / "probe.safetensors"
    save_file(load_file(file) | {"probe.linear.bias": torch.full((5,), torch.nan)}, file)
    with pytest.raises(ProbeError, match="NaN or infinite numbers in probe.linear.bias. Train it again"):
        vjepa.load_probe(folder)
    assert vjepa.load_probe(folder, allow_nonfinite=True).probe.linear.bias.isnan().all()


@pytest.mark.parametrize("given", [{"num_heads": 2}, {"index": 0}, {"allow_missing": ["linear.bias"]}])
def test_a_probe_trained_here_takes_no_settings(trained, given):
    with pytest.raises(CheckpointError, match=f"describes itself: drop {next(iter(given))}"):
        vjepa.load_probe(trained[0], **given)


def test_a_missing_key_is_named_or_allowed(tmp_path):
    file = save_meta(tmp_path / "probe.pt", probe=tiny_probe())
    content = torch.load(file, weights_only=True)
    del content["classifiers"][0]["module.linear.bias"]
    torch.save(content, file)
    with pytest.raises(CheckpointError, match="missing: linear.bias"):
        vjepa.load_probe(file, num_heads=4)
    assert not vjepa.load_probe(file, num_heads=4, allow_missing=["linear.bias"]).linear.bias.any()


@torch.no_grad()
def test_a_probe_that_anticipates(tmp_path):
    case = reference_case("anticipation_probe")
    content = {"module." + k: v for k, v in case.weights().items()}
    torch.save({"classifiers": [content], "epoch": 20}, tmp_path / "ek100.pt")
    probe = vjepa.load_probe(tmp_path / "ek100.pt", num_heads=case.about["ctor"]["num_heads"])
    scores = probe(case.tensors["in.x"])
    for name in ("verb", "noun", "action"):
        case.assert_close(getattr(scores, name), f"out.{name}")
    heads = {"probe_num_heads": case.about["ctor"]["num_heads"]}
    convert(src=str(tmp_path / "ek100.pt"), dst=tmp_path / "native", to="native", **heads)
    report = convert(src=str(tmp_path / "native"), dst=tmp_path / "back.pt", to="meta")
    assert report.figures["max_abs_difference"] <= 1e-6
    assert_same_bytes(torch.load(tmp_path / "back.pt", weights_only=True)["classifiers"][0], content)
    with pytest.raises(CheckpointError, match="one classifier; the probe has num_verbs=.*native or meta"):
        convert(src=str(tmp_path / "native"), dst=tmp_path / "hf", to="hf")
    del content["module.noun_classifier.weight"]
    torch.save({"classifiers": [content]}, tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match="missing: noun_classifier.weight"):
        vjepa.load_probe(tmp_path / "cut.pt")
