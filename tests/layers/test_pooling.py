from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file
from torch.nn import functional as F

from vjepa.checkpoints.architecture import probe_arguments
from vjepa.layers.pooling import AttentivePooler, read_tokens
from vjepa.probes import AttentiveProbe
from vjepa.probes.attention import attention_of

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CLOSE = {"atol": 2e-5, "rtol": 1e-4}  # stated with the fixtures


def released(name: str, **sizes) -> tuple[AttentiveProbe, dict[str, torch.Tensor]]:
    tensors = load_file(FIXTURES / f"{name}.safetensors")
    weights = {k.removeprefix("w."): v for k, v in tensors.items() if k.startswith("w.")}
    # V-JEPA's checkpoints hold a projection that its forward never applies
    weights = {k: v for k, v in weights.items() if ".xattn.proj." not in k}
    probe = AttentiveProbe(num_heads=4, **sizes)
    probe.load_state_dict(weights)
    return probe, tensors


def test_reference_outputs_of_depth_1():
    probe, tensors = released("attentive_probe_v1", embed_dim=48, num_classes=7, depth=1)
    torch.testing.assert_close(probe.pooler(tensors["in.x"]), tensors["out.pooled"], **CLOSE)
    torch.testing.assert_close(probe(tensors["in.x"]), tensors["out.logits"], **CLOSE)
    torch.testing.assert_close(probe(tensors["in.x_small"]), tensors["out.logits_small"], **CLOSE)


def test_reference_outputs_of_depth_4():
    probe, tensors = released("attentive_probe_v2", embed_dim=32, num_classes=9, depth=4)
    torch.testing.assert_close(probe.pooler(tensors["in.x"]), tensors["out.pooled"], **CLOSE)
    torch.testing.assert_close(probe(tensors["in.x"]), tensors["out.logits"], **CLOSE)
    torch.testing.assert_close(probe(0.01 * tensors["in.x"]), tensors["out.logits_x_times_0.01"], **CLOSE)


def v_jepa_1(weights: dict[str, torch.Tensor], tokens: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Logits of a V-JEPA 1 probe of any depth, from its description: the blocks run on the query, after the reading."""

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-5)

    def attend(q, k, v):
        split = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v))
        return rearrange(F.scaled_dot_product_attention(*split), "b h n d -> b n (h d)")

    def mlp(x, name):
        return linear(F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")

    cross, query = "pooler.cross_attention_block", weights["pooler.query_tokens"].expand(len(tokens), -1, -1)
    keys = linear(norm(tokens, f"{cross}.norm1"), f"{cross}.xattn.kv").chunk(2, dim=-1)
    query = query + attend(linear(query, f"{cross}.xattn.q"), *keys)
    query = query + mlp(query, cross)
    for block in sorted({key.rsplit(".attn", 1)[0] for key in weights if ".attn.qkv." in key}):
        qkv = linear(norm(query, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=-1)
        query = query + linear(attend(*qkv), f"{block}.attn.proj")
        query = query + mlp(query, block)
    return linear(query[:, 0], "linear")


@torch.no_grad()
def test_a_deep_probe_of_v_jepa_1_runs_its_blocks_on_the_query():
    tensors = load_file(FIXTURES / "attentive_probe_v1.safetensors")
    weights = {k.removeprefix("w."): v for k, v in tensors.items() if k.startswith("w.")}
    torch.testing.assert_close(
        v_jepa_1(weights, tensors["in.x"].float(), heads=4), tensors["out.logits"], **CLOSE
    )
    deep = AttentivePooler(embed_dim=48, num_heads=4, depth=3, blocks_on="query").state_dict()
    blocks = {k: 3 * torch.randn_like(v) for k, v in deep.items() if k.startswith("blocks.")}
    weights |= {f"pooler.{k}": v / v.shape[-1] ** 0.5 for k, v in blocks.items()}
    arguments = probe_arguments(weights, overrides={"num_heads": 4})
    assert arguments["depth"] == 3 and arguments["blocks_on"] == "query"
    probe = AttentiveProbe(**arguments, unused_proj=True)
    probe.load_state_dict(weights)
    expected = v_jepa_1(weights, tensors["in.x"].float(), heads=4)
    torch.testing.assert_close(probe(tensors["in.x"].float()), expected, **CLOSE)
    torch.testing.assert_close(
        attention_of(probe, tensors["in.x"].float()).sum(dim=1), torch.ones(len(expected))
    )
    with pytest.raises(ValueError, match="Give blocks_on='query'"):
        AttentiveProbe(**arguments | {"blocks_on": "tokens"}, unused_proj=True)


def test_published_parameter_counts():
    with torch.device("meta"):
        v1 = AttentiveProbe(embed_dim=1024, num_classes=400, num_heads=16, depth=1)
        v2 = AttentiveProbe(embed_dim=1024, num_classes=174, num_heads=16, depth=4)
    unused_projection = 1024 * 1024 + 1024
    assert sum(p.numel() for p in v1.parameters()) + unused_projection == 13_007_248
    assert sum(p.numel() for p in v2.parameters()) == 49_514_670


def test_each_query_reads_for_itself():
    pooler = AttentivePooler(embed_dim=16, num_heads=2, num_queries=3, mlp_ratio=2.0)
    tokens = torch.randn(4, 9, 16)
    pooled = pooler(tokens)
    assert pooled.shape == (4, 3, 16)
    assert pooler.cross_attention_block.mlp.fc1.out_features == 32
    with torch.no_grad():
        pooler.query_tokens[:, 1] += 1
    moved = (pooler(tokens) - pooled).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.tolist() == [False, True, False]


def test_looks_that_stand_together_read_as_alone():
    first, second = (AttentivePooler(embed_dim=16, num_heads=h) for h in (2, 4))
    tokens = torch.randn(3, 7, 16)
    mixed = read_tokens(tokens, torch.cat([first.token_queries(), second.token_queries()]))
    torch.testing.assert_close(first.pool(mixed[:, :2]), first(tokens))
    torch.testing.assert_close(second.pool(mixed[:, 2:]), second(tokens))


def test_frozen_tokens_are_read_in_parts_with_the_same_gradients(monkeypatch):
    monkeypatch.setattr("vjepa.layers.pooling.PART_NUMBERS", 2 * 7 * 16)  # two clips, of five
    raw, queries = torch.randn(5, 7, 16), torch.randn(3, 16, requires_grad=True)
    weights = torch.randn(5, 3, 16)
    whole = read_tokens((2 * raw + 1).requires_grad_(), queries)
    parts = read_tokens(raw, queries, lambda tokens: 2 * tokens + 1)
    torch.testing.assert_close(parts, whole)
    expected, found = (torch.autograd.grad((m * weights).sum(), queries)[0] for m in (whole, parts))
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(
        lambda given: read_tokens(raw.double(), given), queries.detach().double().requires_grad_()
    )


def test_second_derivatives_of_frozen_tokens_are_refused():
    queries = torch.randn(3, 16, requires_grad=True)
    with pytest.raises(ValueError, match="second derivatives are not computed"):
        torch.autograd.grad(
            read_tokens(torch.randn(2, 7, 16), queries).square().sum(), queries, create_graph=True
        )


def test_frozen_tokens_are_read_in_autocast_as_others_are():
    raw, queries = torch.randn(5, 7, 16), torch.randn(3, 16, requires_grad=True)
    weights = torch.randn(5, 3, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = [read_tokens(tokens, queries) for tokens in (raw, raw.clone().requires_grad_())]
    assert torch.equal(*mixed) and mixed[0].dtype == torch.bfloat16
    found, expected = (torch.autograd.grad((m * weights).sum(), queries)[0] for m in mixed)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    assert read_tokens(raw[:0], queries).shape == (0, 3, 16)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_frozen_tokens_are_read_in_the_type_of_the_pooler(kind):
    pooler = AttentivePooler(embed_dim=16, num_heads=2).to(kind)
    assert pooler(torch.randn(2, 7, 16)).dtype == kind


def test_order_of_tokens_does_not_matter():
    pooler = AttentivePooler(embed_dim=16, num_heads=2, depth=2)
    tokens = torch.randn(2, 8, 16)
    torch.testing.assert_close(pooler(tokens.flip(1)), pooler(tokens))


def test_depth_and_heads_are_checked():
    with pytest.raises(ValueError, match="Give 1 or 4"):
        AttentivePooler(embed_dim=16, num_heads=2, depth=0)
    with pytest.raises(ValueError, match="divisible by num_heads"):
        AttentivePooler(embed_dim=16, num_heads=3)
