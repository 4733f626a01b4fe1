"""Weights in 16 bits with their other 16 bits kept beside them: the two together are the weight in fp32, to the bit.

In bfloat16 alone a moving average stands still and small steps of AdamW are lost: 8 bits do not hold
`average + 0.002 * (weight - average)`. With the lower halves, steps and averages are those of fp32 weights, and the
networks compute with the upper halves, which are weights rounded to bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import BFloat16, Float, Int16
from torch import Tensor, nn

from vjepa.errors import UsageError

HALF = 16  # bits
UNIT = 1 << HALF  # of the upper half, in the bits of the lower


def split(weight: Float[Tensor, "*n"]) -> tuple[BFloat16[Tensor, "*n"], Int16[Tensor, "*n"]]:
    """The upper and the lower 16 bits of an fp32 weight, the upper rounded to the nearest.

    >>> [half.item() for half in split(torch.tensor(1.001))]
    [1.0, 8389]
    """
    # of all that is no number, one whose upper half is none either
    bits = weight.masked_fill(weight.isnan(), torch.nan).view(torch.int32)
    upper = (bits + UNIT // 2) >> HALF
    return upper.to(torch.int16).view(torch.bfloat16), (bits - (upper << HALF)).to(torch.int16)


def join(upper: BFloat16[Tensor, "*n"], lower: Int16[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The fp32 weight that was split."""
    return ((upper.view(torch.int16).to(torch.int32) << HALF) + lower).view(torch.float32)


class HalvedParameter(nn.Parameter):
    """A weight in bfloat16 that knows its lower half; cast to another type it is one no more."""

    lower: Int16[Tensor, "*n"]  # set by who makes one

    def __deepcopy__(self, memo: dict[int, Any]) -> HalvedParameter:
        copied = super().__deepcopy__(memo)
        copied.lower = self.lower.clone()
        return copied

    def exact(self) -> Float[Tensor, "*n"]:
        """The weight in fp32, detached.

        Raises:
            RuntimeError: If the weight was cast.
        """
        if self.dtype != torch.bfloat16:
            raise UsageError(
                f"a weight in halves was cast to {self.dtype}, and its lower half is of bfloat16. Cast the network "
                "that vjepa.training.complete gives, or one that loads its state_dict()."
            )
        self.lower = self.lower.to(self.device)  # a module moves its weights alone
        return join(self.detach(), self.lower)

    @torch.no_grad()
    def set_exact(self, weight: Float[Tensor, "*n"]) -> None:
        """Take the value of an fp32 weight."""
        upper, self.lower = split(weight.to(self.device))
        self.copy_(upper)


def exact(weight: Tensor) -> Tensor:
    """A weight in fp32, put together where it is in halves; any other as it is."""
    return weight.exact() if isinstance(weight, HalvedParameter) else weight


def in_halves(module: nn.Module) -> bool:
    """Whether any weight of a module is in halves."""
    return any(isinstance(weight, HalvedParameter) for weight in module.parameters())


def halve(module: nn.Module) -> None:
    """Put all weights of a module in halves, in place; its buffers stay, and so do weights in halves.

    Its state dict goes on to hold weights in fp32, exactly and on the CPU, and so it loads them: a checkpoint is the
    same whatever the weights were kept in. Loaded with `assign=True`, or saved as a whole, it loses the lower halves.

    Args:
        module: Whose parameters become others: an optimiser is to be built after.
    """
    halved: dict[nn.Parameter, HalvedParameter] = {}
    for part in module.modules():
        others = {n: w for n, w in part._parameters.items() if not isinstance(w, HalvedParameter | None)}
        for name, weight in others.items():
            if weight not in halved:
                upper, lower = split(weight.detach().float().contiguous())
                halved[weight] = HalvedParameter(upper, requires_grad=weight.requires_grad)
                halved[weight].lower = lower
            part._parameters[name] = halved[weight]
        if others:
            part.register_state_dict_post_hook(_give_exact)
            part.register_load_state_dict_pre_hook(_take_exact)


def _give_exact(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name, weight in module._parameters.items():
        if isinstance(weight, HalvedParameter):
            state[prefix + name] = weight.exact().cpu()  # no second copy of all weights on the device


def _take_exact(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, weight in module._parameters.items():
        given = state.get(prefix + name)
        if isinstance(weight, HalvedParameter) and given is not None and given.shape == weight.shape:
            weight.set_exact(given.float())
            state[prefix + name] = weight.detach().clone()
