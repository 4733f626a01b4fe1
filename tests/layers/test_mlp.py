"""The MLP that computes its hidden layer twice: the sums of the plain one, with none held."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vjepa.layers import mlp as mlp_module
from vjepa.layers.mlp import GeluMlp

D, HIDDEN = 8, 32


def results(run, tokens, layers, dtype):
    """Output and gradients of tokens and weights."""
    given = tokens.clone().requires_grad_()
    for layer in layers:
        layer.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = run(given)
    (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return [out, given.grad, *(p.grad for layer in layers for p in layer.parameters())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 5, D), (1, 3, D)])
def test_output_and_gradients_are_those_of_the_plain_mlp(dtype, shape):
    torch.manual_seed(0)
    mlp, tokens = GeluMlp(embed_dim=D, hidden_dim=HIDDEN), torch.randn(shape)
    plain = nn.Sequential(mlp.fc1, nn.GELU(), mlp.fc2)
    layers = [mlp.fc1, mlp.fc2]
    found = results(mlp, tokens, layers, dtype)
    again = results(lambda x: checkpoint(mlp, x, use_reentrant=False), tokens, layers, dtype)
    right = results(plain, tokens, layers, dtype)
    for one, two, want in zip(found, again, right, strict=True):
        assert one.dtype == want.dtype
        torch.testing.assert_close(one, want)
        assert torch.equal(one, two)


@pytest.mark.parametrize("block_bytes", [1, 4 * HIDDEN * 3, 2**24])
def test_without_gradients_a_part_at_a_time_is_the_whole(block_bytes, monkeypatch):
    monkeypatch.setattr(mlp_module, "BLOCK_BYTES", block_bytes)
    mlp, tokens = GeluMlp(embed_dim=D, hidden_dim=HIDDEN), torch.randn(2, 5, D)
    with torch.no_grad():
        torch.testing.assert_close(mlp(tokens), mlp.fc2(torch.nn.functional.gelu(mlp.fc1(tokens))))
        assert mlp(tokens[:0]).shape == (0, 5, D)


def test_gradients_by_finite_differences():
    torch.manual_seed(0)
    mlp = GeluMlp(embed_dim=3, hidden_dim=4).double()
    assert torch.autograd.gradcheck(mlp, torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True))


def test_the_gradient_passes_through_frozen_weights():
    torch.manual_seed(0)
    mlp, tokens = GeluMlp(embed_dim=D, hidden_dim=HIDDEN), torch.randn(2, 5, D, requires_grad=True)
    (trained,) = torch.autograd.grad(mlp(tokens).square().sum(), tokens)
    mlp.requires_grad_(False)
    (frozen,) = torch.autograd.grad(mlp(tokens).square().sum(), tokens)
    assert torch.equal(trained, frozen)


def test_no_hidden_layer_is_held():
    mlp, held = GeluMlp(embed_dim=D, hidden_dim=HIDDEN), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
        mlp(torch.randn(2, 5, D))
    assert sorted(tuple(t.shape) for t in held) == [(2, 5, D), (D, HIDDEN), (HIDDEN,), (HIDDEN, D)]


def test_second_derivatives_are_refused_below_a_sum_too():
    mlp, tokens = GeluMlp(embed_dim=D, hidden_dim=HIDDEN), torch.randn(2, 5, D, requires_grad=True)
    with pytest.raises(ValueError, match="second derivatives are not computed through this layer"):
        torch.autograd.grad((tokens.pow(2) + mlp(tokens)).sum(), tokens, create_graph=True)
