"""The moving average follows once an optimiser step, however a batch is cut."""

import lightning as L
import pytest
import torch

from tests.training.runs import RUN_WARNINGS, Recorder, clip_loader, quiet_trainer, tiny_module
from vjepa.optim import Constant

pytestmark = pytest.mark.filterwarnings(*RUN_WARNINGS)
ADAM_EPS = 1e-3  # large: Adam's first step is a sign, which turns rounding of zero gradients into whole steps


def trajectory(folder, *, batch_size: int, accumulate: int) -> tuple[torch.Tensor, list[int]]:
    """Weights of the target encoder after each step (steps, P); after which batches they moved."""
    recorder, module = Recorder(), tiny_module(eps=ADAM_EPS)
    start = torch.cat([p.detach().flatten().clone() for p in module.objective.target_encoder.parameters()])
    trainer = quiet_trainer(folder, accumulate_grad_batches=accumulate, callbacks=[recorder])
    trainer.fit(module, clip_loader(32, batch_size))
    before = [start, *recorder.weights[:-1]]
    moved = [not torch.equal(a, b) for a, b in zip(before, recorder.weights, strict=True)]
    assert moved == [(i + 1) % accumulate == 0 for i in range(len(moved))]  # once a step, at its last batch
    assert trainer.global_step == 4
    return torch.stack(recorder.weights[accumulate - 1 :: accumulate]), moved


def test_accumulation_does_not_change_the_trajectory(tmp_path):
    whole, moved = trajectory(tmp_path, batch_size=8, accumulate=1)
    parts, moved_in_parts = trajectory(tmp_path, batch_size=2, accumulate=4)
    assert sum(moved) == sum(moved_in_parts) == 4
    assert (whole[-1] - whole[0]).abs().max() > 1e-3  # it went somewhere
    torch.testing.assert_close(parts, whole, atol=2e-6, rtol=1e-5)


class Losses(L.Callback):
    """The loss of each batch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        # Lightning gives back the loss as it is divided among the batches of a step
        self.values.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)


def test_accumulation_has_the_losses_of_one_batch_for_fifty_steps(tmp_path):
    def losses(batch_size: int, accumulate: int) -> torch.Tensor:
        seen = Losses()
        settings = {"lr": Constant(at=3e-2), "momentum": Constant(at=0.9), "eps": ADAM_EPS}
        limits = {"max_epochs": 13, "max_steps": 50, "accumulate_grad_batches": accumulate}
        trainer = quiet_trainer(tmp_path, callbacks=[seen], gradient_clip_val=1.0, **limits)
        trainer.fit(tiny_module(**settings), clip_loader(32, batch_size))
        return torch.tensor(seen.values).view(50, accumulate).mean(dim=1)

    whole = losses(8, 1)
    assert whole[0] - whole[-1] > 0.01  # it learned
    torch.testing.assert_close(losses(4, 2), whole, atol=1e-5, rtol=0)
