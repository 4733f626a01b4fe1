"""The precision `bf16-true`: networks in bfloat16, without losing what bfloat16 cannot hold."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.plugins import Precision
from torch import nn
from torch.distributed.tensor import DTensor

from vjepa.optim import halve
from vjepa.optim.halves import HalvedParameter


class Bf16True(Precision):
    """Networks, their tokens and gradients in bfloat16, the weights' lower halves beside them: `vjepa.optim.halves`.

    Lightning's own plugin of this name rounds the weights; this one goes in its place:
    `Trainer(plugins=[Bf16True()])`. On the command line `--trainer.precision bf16-true` stands for it.
    """

    precision: Literal["bf16-true"] = "bf16-true"

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Put the weights in halves; called when a checkpoint's weights have been loaded.

        Raises:
            ValueError: If they are sharded.
        """
        if any(isinstance(weight, DTensor) for weight in module.parameters()):
            raise ValueError(
                "--trainer.precision bf16-true is not for strategy fsdp2. Set it to bf16-mixed, or the strategy to ddp."
            )
        halve(module)
        return module


def share_lower_halves(module: nn.Module) -> None:
    """Give all ranks the lower halves of the first, as DDP gives them its weights."""
    if not torch.distributed.is_initialized():
        return
    for weight in module.parameters():
        if isinstance(weight, HalvedParameter):
            weight.lower = weight.lower.to(weight.device)
            # in bytes: not every backend sends integers of two
            torch.distributed.broadcast(weight.lower.reshape(-1).view(torch.uint8), src=0)
