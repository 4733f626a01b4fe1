"""The precisions of a run, and how `bf16-true` keeps what bfloat16 cannot hold."""

from __future__ import annotations

from typing import Literal, get_args

import lightning as L
import torch
from lightning.pytorch.plugins import Precision
from torch import nn
from torch.distributed.tensor import DTensor

from vjepa.errors import SettingError
from vjepa.optim import halve, in_halves
from vjepa.optim.halves import HalvedParameter

PrecisionName = Literal["32-true", "bf16-mixed", "bf16-true", "16-mixed"]


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
            raise SettingError(
                "--trainer.precision bf16-true is not for strategy fsdp2. Set it to bf16-mixed, or the strategy to ddp."
            )
        halve(module)
        return module


def check_precision(trainer: L.Trainer, network: nn.Module) -> None:
    """See that a run in the trainer's precision loses nothing.

    Raises:
        ValueError: If it would, or nobody knows.
    """
    precision, allowed = trainer.precision, get_args(PrecisionName)
    keeps_halves = isinstance(trainer.precision_plugin, Bf16True)
    if precision in ("bf16-true", "16-true") and not keeps_halves:
        raise SettingError(
            f"precision {precision!r} rounds the weights themselves to 16 bits, in which a moving average stands "
            "still from a momentum of 0.998 on. Leave precision out and give "
            "plugins=[vjepa.training.Bf16True()]; on the command line, --trainer.precision bf16-true."
        )
    if in_halves(network) and not keeps_halves:
        raise SettingError(
            f"the weights are in halves after a fit in bf16-true, and precision is {precision!r}. Give "
            "plugins=[vjepa.training.Bf16True()] again, or the checkpoint to a new module."
        )
    if precision not in allowed:
        raise SettingError(
            f"--trainer.precision {precision} is not supported. Set it to {', '.join(allowed[:-1])} or {allowed[-1]}."
        )


def share_lower_halves(module: nn.Module) -> None:
    """Give all ranks the lower halves of the first, as DDP gives them its weights."""
    if not torch.distributed.is_initialized():
        return
    for weight in module.parameters():
        if isinstance(weight, HalvedParameter):
            weight.lower = weight.lower.to(weight.device)
            # in bytes: not every backend sends integers of two
            torch.distributed.broadcast(weight.lower.reshape(-1).view(torch.uint8), src=0)
