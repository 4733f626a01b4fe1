"""Weights in 16 bits with their other 16 bits kept beside them: the two together are the weight in fp32, to the bit.

In bfloat16 alone a moving average stands still and small steps of AdamW are lost: 8 bits do not hold
`average + 0.002 * (weight - average)`. With the lower halves, steps and averages are those of fp32 weights, and the
networks compute with the upper halves, which are weights rounded to bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int16
from torch import Tensor, nn

HALF = 16  # bits
UNIT = 1 << HALF  # of the upper half, in the bits of the lower


def split(
    weight: Float[Tensor, "*n"], kind: torch.dtype = torch.bfloat16
) -> tuple[Float[Tensor, "*n"], Int16[Tensor, "*n"]]:
    """The upper and the lower 16 bits of an fp32 weight, the upper rounded to the nearest.

    Args:
        weight: In fp32.
        kind: What the upper bits are called; in anything but bfloat16 they mean nothing.

    >>> [half.item() for half in split(torch.tensor(1.001))]
    [1.0, 8389]
    """
    bits = weight.view(torch.int32)
    upper = (bits + UNIT // 2) >> HALF
    return upper.to(torch.int16).view(kind), (bits - (upper << HALF)).to(torch.int16)


def join(upper: Float[Tensor, "*n"], lower: Int16[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The fp32 weight that was split."""
    return ((upper.view(torch.int16).to(torch.int32) << HALF) + lower).view(torch.float32)


class HalvedParameter(nn.Parameter):
    """A weight in bfloat16 that knows its lower half."""

    lower: Int16[Tensor, "*n"]

    def __deepcopy__(self, memo: dict[int, Any]) -> HalvedParameter:
        copied = super().__deepcopy__(memo)
        copied.lower = self.lower.clone()
        return copied

    def exact(self) -> Float[Tensor, "*n"]:
        """The weight in fp32, detached."""
        self.lower = self.lower.to(self.device)  # a module moves its weights alone
        return join(self.detach(), self.lower)

    @torch.no_grad()
    def set_exact(self, weight: Float[Tensor, "*n"]) -> None:
        """Take the value of an fp32 weight."""
        upper, self.lower = split(weight.to(self.device), self.dtype)
        self.copy_(upper)


def exact(weight: Tensor) -> Tensor:
    """A weight in fp32, put together where it is in halves; any other as it is."""
    return weight.exact() if isinstance(weight, HalvedParameter) else weight


def in_halves(module: nn.Module) -> bool:
    """Whether any weight of a module is in halves."""
    return any(isinstance(weight, HalvedParameter) for weight in module.parameters())


def halve(module: nn.Module, kind: torch.dtype = torch.bfloat16) -> None:
    """Put all fp32 weights of a module in halves, in place; its buffers stay.

    Its state dict goes on to hold weights in fp32, exactly, and so it loads them: a checkpoint is the same whatever
    the weights were kept in.

    Args:
        module: Whose parameters become others: an optimiser is to be built after.
        kind: See `split`.
    """
    halved: dict[nn.Parameter, HalvedParameter] = {}
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is None or weight.dtype != torch.float32:
                continue
            if weight not in halved:
                upper, lower = split(weight.detach().contiguous(), kind)
                halved[weight] = HalvedParameter(upper, requires_grad=weight.requires_grad)
                halved[weight].lower = lower
            part._parameters[name] = halved[weight]
        if any(isinstance(weight, HalvedParameter) for weight in part._parameters.values()):
            part.register_state_dict_post_hook(_give_exact)
            part.register_load_state_dict_pre_hook(_take_exact)


def _give_exact(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name, weight in module._parameters.items():
        if isinstance(weight, HalvedParameter):
            state[prefix + name] = weight.exact()


def _take_exact(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, weight in module._parameters.items():
        given = state.get(prefix + name)
        if isinstance(weight, HalvedParameter) and given is not None and given.shape == weight.shape:
            weight.set_exact(given.float())
            state[prefix + name] = weight.detach().clone()
