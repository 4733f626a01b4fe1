"""AdamW for weights in halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.adamw import adamw

from vjepa.optim.halves import HalvedParameter

# devices for which AdamW is one kernel here, which wants the count of steps beside the weights
FUSED = ("cpu", "cuda")


class SplitAdamW(torch.optim.AdamW):
    """AdamW whose steps are those of fp32 weights, with averages in fp32, on weights that `halve` put in halves.

    One weight at a time is put together for its step, so that no copy of all weights is held.

    Args:
        groups: Parameter groups of `HalvedParameter`s.
        betas: Decay of the two averages.
        eps: Added to the root of the second.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(groups, betas=betas, eps=eps)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; the closure's value, where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_one(weight, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state; torch would round the averages to the type of the weights."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, held in state_dict["state"].items():
            weight = weights[number]
            averages = {n: held[n].to(weight.device, copy=True) for n in ("exp_avg", "exp_avg_sq")}
            self.state[weight] |= {**averages, "step": held["step"].to(_place_of_count(weight), copy=True)}

    def _step_one(self, weight: HalvedParameter, group: dict[str, Any]) -> None:
        whole = weight.exact()
        state = self.state[weight]
        if not state:
            state |= {"step": torch.zeros((), dtype=torch.float32, device=_place_of_count(weight))}
            state |= {name: torch.zeros_like(whole) for name in ("exp_avg", "exp_avg_sq")}
        assert weight.grad is not None
        beta1, beta2 = group["betas"]
        adamw(
            [whole],
            [weight.grad.float()],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=weight.device.type in FUSED,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        weight.set_exact(whole)


def _place_of_count(weight: HalvedParameter) -> torch.device:
    return weight.device if weight.device.type in FUSED else torch.device("cpu")
