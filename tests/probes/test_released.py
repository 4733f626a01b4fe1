"""`vjepa.load_probe` also opens what `vjepa probe` wrote, which says all itself."""

import pytest
import torch

import vjepa
from tests.checkpoints.given import WIDTH, tiny_encoder, tiny_probe
from vjepa.checkpoints import CheckpointError, save_meta
from vjepa.probes.base import Standardize, StandardizedProbe
from vjepa.probes.files import ProbeCard, digest, save_probe


@pytest.fixture
def trained(tmp_path):
    encoder = tiny_encoder()
    probe = StandardizedProbe(Standardize(embed_dim=WIDTH), tiny_probe())
    card = ProbeCard(
        kind="attentive",
        label_names=tuple("abcde"),
        embed_dim=WIDTH,
        num_heads=4,
        depth=4,
        encoder="encoder",
        encoder_digest=digest(encoder),
        encoder_config=encoder.config,
        num_frames=4,
        fps=None,
    )
    save_probe(tmp_path / "probe", probe, card)
    return tmp_path / "probe", probe.eval()


@torch.no_grad()
def test_a_probe_trained_here(trained):
    folder, probe = trained
    tokens = torch.randn(2, 6, WIDTH)
    torch.testing.assert_close(vjepa.load_probe(folder)(tokens), probe(tokens), atol=1e-6, rtol=0)


@pytest.mark.parametrize("given", [{"num_heads": 2}, {"index": 0}, {"allow_missing": ["linear.bias"]}])
def test_a_probe_trained_here_takes_no_settings(trained, given):
    with pytest.raises(CheckpointError, match=f"says all itself: drop {next(iter(given))}"):
        vjepa.load_probe(trained[0], **given)


def test_a_missing_key_is_named_or_allowed(tmp_path):
    file = save_meta(tmp_path / "probe.pt", probe=tiny_probe())
    content = torch.load(file, weights_only=True)
    del content["classifiers"][0]["module.linear.bias"]
    torch.save(content, file)
    with pytest.raises(CheckpointError, match="missing: linear.bias"):
        vjepa.load_probe(file, num_heads=4)
    assert not vjepa.load_probe(file, num_heads=4, allow_missing=["linear.bias"]).linear.bias.any()
