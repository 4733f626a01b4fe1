"""The attentive probe: released files, whole and back (their outputs: tests/layers/test_pooling.py)."""

import pytest
import torch

from tests.reference import reference_case
from vjepa.probes import AttentiveProbe


def released(name: str):
    case = reference_case(name)
    sizes = {k: case.about["ctor"][k] for k in ("embed_dim", "num_classes", "num_heads", "depth")}
    probe = AttentiveProbe(**sizes, unused_proj=name == "attentive_probe_v1")
    probe.load_state_dict(case.weights())
    return case, probe.eval()


@pytest.mark.parametrize("name", ["attentive_probe_v1", "attentive_probe_v2"])
def test_a_released_file_is_given_back_tensor_by_tensor(name):
    case, probe = released(name)
    kept = probe.state_dict()
    assert kept.keys() == case.weights().keys()
    assert all(torch.equal(kept[k], v) for k, v in case.weights().items())


def test_the_unused_projection_is_neither_applied_nor_trained():
    case, probe = released("attentive_probe_v1")
    before = probe(case.tensors["in.x"])
    probe.pooler.cross_attention_block.xattn.proj.weight.data += 1
    assert torch.equal(probe(case.tensors["in.x"]), before)
    before.sum().backward()
    idle = {name for name, p in probe.named_parameters() if not p.requires_grad}
    assert {name.rsplit(".", 1)[0] for name in idle} == {"pooler.cross_attention_block.xattn.proj"}
    assert all(p.grad is not None for p in probe.parameters() if p.requires_grad)


def test_published_size_with_the_unused_projection():
    with torch.device("meta"):
        probe = AttentiveProbe(embed_dim=1024, num_classes=400, num_heads=16, unused_proj=True)
    assert sum(p.numel() for p in probe.parameters()) == 13_007_248
