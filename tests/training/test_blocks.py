"""Blocks that are computed twice, or compiled: the same numbers as the plain ones; and other precisions."""

import subprocess
import sys

import pytest
import torch

from tests.training.runs import RUN_WARNINGS, clip_loader, quiet_trainer, tiny_module
from vjepa.masks import RandomTubes
from vjepa.models import Predictor
from vjepa.objectives import PixelPrediction
from vjepa.optim import Constant
from vjepa.training.module import PretrainModule

pytestmark = pytest.mark.filterwarnings(*RUN_WARNINGS)


def trained(folder, settings, **arguments):
    module = tiny_module([RandomTubes(ratio=0.5), RandomTubes(ratio=0.75)], **settings)
    quiet_trainer(folder, **arguments).fit(module, clip_loader(8, 2))
    return module


def assert_same_weights(one, other, **tolerance):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], **tolerance)


def held(module) -> int:
    """Bytes kept for the backward pass of one step."""
    sizes = {}

    def keep(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = next(iter(clip_loader(8, 8)))
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = module.objective(batch, torch.Generator().manual_seed(0)).loss
    loss.backward()
    return sum(size for place, size in sizes.items() if place not in own)


def test_blocks_computed_twice_train_to_the_same_bits_and_hold_less(tmp_path):
    plain, twice = (trained(tmp_path, {"recompute_blocks": choice}) for choice in (False, True))
    assert_same_weights(plain, twice, atol=0, rtol=0)
    assert held(twice) < 0.6 * held(plain)


@pytest.mark.slow
def test_compiled_blocks_train_to_the_same_weights():
    command = [sys.executable, "-m", "tests.training.compiled"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    apart = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("apart")]
    assert len(apart) == 2 and max(apart) < 2e-4  # alone, and with blocks computed twice


def test_mixed_precision_is_near_the_full_one(tmp_path):
    full, half = trained(tmp_path, {}), trained(tmp_path, {}, precision="bf16-mixed")
    states = [(p.detach(), q.detach()) for p, q in zip(full.parameters(), half.parameters(), strict=True)]
    assert all(q.dtype == torch.float32 and torch.isfinite(q).all() for _, q in states)
    assert (
        max(float((p - q).abs().max()) for p, q in states) < 0.09
    )  # 4 steps of 0.01 each, in either direction
    assert not all(torch.equal(p, q) for p, q in states)


def test_a_target_in_bf16_leaves_the_loss_of_an_fp32_run_as_it_is():
    losses, targets = [], []
    for lower in (False, True):
        objective = tiny_module([RandomTubes(ratio=0.5)], target_bf16=lower).objective
        batch = next(iter(clip_loader(8, 8)))
        losses.append(objective(batch, torch.Generator().manual_seed(0)).loss.item())
        targets.append(objective.targets(batch.video))
        assert targets[-1].dtype == torch.float32
        assert {block.products for block in objective.context_encoder.blocks} == {None}
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)
    apart = (targets[0] - targets[1]).norm() / targets[0].norm()
    assert 1e-5 < apart < 4e-3  # not the same, and nearer than bf16's own step of 2 ** -8


def test_a_target_that_is_trained_stays_as_the_run_is():
    tiny = tiny_module([RandomTubes(ratio=0.5)]).objective
    encoder, build = (
        tiny.context_encoder,
        lambda width, **more: Predictor(width, embed_dim=8, depth=1, num_heads=1, **more),
    )
    pixels = PixelPrediction(encoder=encoder, predictor=build, masks=[RandomTubes(ratio=0.5)])
    with pytest.raises(ValueError, match="PixelPrediction .*target_bf16"):
        PretrainModule(
            objective=pixels, lr=Constant(at=1e-3), weight_decay=Constant(at=0.0), target_bf16=True
        )


def test_clipped_gradients_train_otherwise(tmp_path):
    plain, clipped = trained(tmp_path, {}), trained(tmp_path, {}, gradient_clip_val=1e-9)
    with pytest.raises(AssertionError):
        assert_same_weights(plain, clipped, atol=1e-4, rtol=0)
