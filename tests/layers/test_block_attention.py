"""Attention by blocks: what the fused kernel gives, forward and backward, in one block and in several."""

import pytest
import torch
import torch.nn.functional as F

from vjepa.layers.block_attention import BLOCK_BYTES, attend_in_blocks

SEVERAL = int((BLOCK_BYTES / 4) ** 0.5) + 100  # fp32 scores of so many queries do not fit one block


def tensors(length, dtype=torch.float32, requires_grad=True):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 2, 2, length, 8, generator=generator).to(dtype).unbind(0)
    return [t.clone().requires_grad_(requires_grad) for t in drawn]


@pytest.mark.parametrize("length", [7, SEVERAL])
def test_what_the_fused_kernel_gives(length):
    ours, theirs = tensors(length), tensors(length)
    mixed, expected = attend_in_blocks(*ours), F.scaled_dot_product_attention(*theirs)
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)
    arriving = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1))
    mixed.backward(arriving)
    expected.backward(arriving)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)


def test_half_precision_is_as_close_to_the_truth_as_the_fused_kernel():
    truth, ours, theirs = tensors(900), tensors(900, torch.bfloat16), tensors(900, torch.bfloat16)
    F.scaled_dot_product_attention(*truth).sum().backward()
    attend_in_blocks(*ours).sum().backward()
    F.scaled_dot_product_attention(*theirs).sum().backward()
    for a, b, c in zip(truth, ours, theirs, strict=True):
        scale = a.grad.abs().max()
        apart = [float((a.grad - x.grad.float()).abs().max() / scale) for x in (b, c)]
        assert b.grad.dtype == torch.bfloat16 and apart[0] < max(2 * apart[1], 2e-2), apart


def test_an_operator_that_compilers_know():
    given = tensors(SEVERAL, requires_grad=False)
    torch.library.opcheck(attend_in_blocks, given, test_utils=("test_schema", "test_faketensor"))
    small = tensors(5)
    torch.library.opcheck(attend_in_blocks, small, test_utils=("test_autograd_registration",))
