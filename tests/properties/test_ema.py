"""The moving average follows once an optimiser step, however a batch is cut."""

import pytest
import torch

from tests.training.runs import RUN_WARNINGS, Recorder, clip_loader, quiet_trainer, tiny_module

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
