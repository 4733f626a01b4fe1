import pytest
import torch

from tests.probes.fitting.test_selection import fitted, labelled_tokens
from tests.probes.test_commands import run, tiny_encoder, write_split
from tests.probes.verbs import classify
from vjepa.models.files import save_folder
from vjepa.probes import ProbeSettings
from vjepa.probes.files import open_probe
from vjepa.probes.knn import KnnProbe


def bank_of(**options) -> KnnProbe:
    probe = KnnProbe(embed_dim=2, num_classes=2, num_clips=3, **options)
    probe.bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    probe.labels = torch.tensor([0, 1, 1])
    return probe


def test_the_nearest_vote_by_their_cosine():
    tokens = torch.tensor([[[4.0, 0.0], [2.0, 0.0]]])
    weights = torch.tensor([1.0, 0.6]).div(0.5).exp()
    shares = bank_of(k=2, temperature=0.5)(tokens).exp()
    torch.testing.assert_close(shares, torch.stack([weights[0], weights[1]])[None] / weights.sum())
    alone = bank_of(k=1)(tokens).softmax(dim=-1)
    torch.testing.assert_close(alone, torch.tensor([[1.0, 0.0]]), atol=2e-6, rtol=0)
    assert bank_of(k=50).k == 3
    with pytest.raises(ValueError, match="k of at least 1"):
        bank_of(k=0)


def test_separable_labels_are_found_and_the_grid_is_used():
    settings = ProbeSettings(k=(1, 15), temperature=(0.05, 0.5))
    train, val = labelled_tokens(240, 0, strength=9.0), labelled_tokens(60, 1, strength=9.0)
    result = fitted("knn", settings=settings, train=train, val=val)
    assert result.top1 > 0.9 and result.converged
    assert result.settings["k"] in (1, 15) and result.settings["temperature"] in (0.05, 0.5)
    with pytest.raises(ValueError, match="at least one value each"):
        ProbeSettings(k=())


def test_a_knn_probe_travels(tmp_path):
    write_split(tmp_path, "train", 12, 0)
    write_split(tmp_path, "val", 6, 100)
    save_folder(tmp_path / "encoder", tiny_encoder(0))
    figures = run(tmp_path, out=tmp_path / "p", probe="knn", random_init=False).figures
    assert figures["top1"] == 1.0 and figures["chosen"]["num_clips"] == 12
    assert figures["interval"] == (1.0, 1.0)
    assert open_probe(tmp_path / "p")[1].kind == "knn"
    found = classify(probe=tmp_path / "p", videos=[str(tmp_path / "val/1.mp4")]).figures["predictions"]
    assert next(iter(found.values()))[0]["label"] == "dark"


def test_several_layers_are_read_together(tmp_path):
    write_split(tmp_path, "train", 12, 0)
    write_split(tmp_path, "val", 6, 100)
    save_folder(tmp_path / "encoder", tiny_encoder(0))
    run(tmp_path, out=tmp_path / "p", probe="linear", layers=(0,), random_init=False)
    assert open_probe(tmp_path / "p")[1].clip.layers == (0,)
    with pytest.raises(ValueError, match="name blocks 0..0 once each"):
        run(tmp_path, out=tmp_path / "p", layers=(0, 1))
    classify(probe=tmp_path / "p", videos=[str(tmp_path / "val/1.mp4")])
