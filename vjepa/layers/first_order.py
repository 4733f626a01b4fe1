"""Backward passes that are written by hand and cannot be differentiated again."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from vjepa.errors import SettingError

Backward = Callable[..., Any]


def first_order(backward: Backward) -> Backward:
    """Refuse second derivatives through the `backward` of an autograd function.

    torch's `once_differentiable` refuses them only where the arriving gradient has a graph. Below a plain sum it has
    none, and the second derivative would lack a term without an error.
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # compiled code refuses by itself
            raise SettingError(
                "second derivatives are not computed through this layer, whose backward pass is written by hand. "
                "Compute the gradient without create_graph=True."
            )
        return backward(ctx, *gradients)

    return checked
