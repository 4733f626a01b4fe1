"""The losses of V-JEPA 2-AC: the published values, and what each argument does."""

import pytest
import torch

from tests.reference import encoder_arguments, load_strictly, reference_case
from vjepa.models import ActionPredictor, VideoEncoder
from vjepa.objectives import action_losses, frame_features, rolled_out, teacher_forced
from vjepa.types import TokenGrid

GRID = TokenGrid(4, 2, 2)


def tiny() -> ActionPredictor:
    torch.manual_seed(0)
    predictor = ActionPredictor(24, embed_dim=24, depth=1, num_heads=2, grid_size=2).eval()
    for name in ("action_encoder", "state_encoder", "extrinsics_encoder"):
        predictor.get_submodule(name).weight.data *= 30
    predictor.predictor_blocks[0].attn.qkv.weight.data *= 20  # at init all tokens attend alike
    return predictor


def episode():
    """Features of 4 frames, 3 actions, 4 states, 4 places of the camera."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, len(GRID), 24, generator=generator)
    steps = [torch.randn(2, t, k, generator=generator) for t, k in ((3, 7), (4, 7), (4, 6))]
    return torch.nn.functional.layer_norm(features, (24,)), *steps


def test_published_losses():
    case = reference_case("ac_losses")
    about = case.about["ctor"]
    encoder = VideoEncoder(**encoder_arguments(about["encoder"]))
    load_strictly(encoder, case.weights("w.encoder."))
    sizes = {k: about["predictor"][k] for k in ("depth", "num_heads")}
    predictor = ActionPredictor(40, embed_dim=36, grid_size=4, **sizes)
    load_strictly(predictor, case.weights("w.predictor."))
    grid = TokenGrid(4, 4, 4)
    given = (case.tensors["in.actions"], case.tensors["in.states"])

    features = frame_features(encoder, case.tensors["in.clips"])
    case.assert_close(features, "out.h")
    forced = teacher_forced(predictor, features, *given, grid=grid)
    case.assert_close(forced.detach(), "out.z_tf")
    one = TokenGrid(1, 4, 4)
    rollout = rolled_out(predictor, features[:, : len(one)], *given, grid=one, num_steps=2)
    case.assert_close(rollout.detach(), "out.z_ar")

    losses = action_losses(predictor, features, *given, grid=grid, num_steps=about["auto_steps"])
    expected = case.about["losses"]
    assert [x.item() for x in losses] == pytest.approx([expected["jloss"], expected["sloss"]], abs=2e-5)
    assert sum(losses).item() == pytest.approx(expected["loss"], abs=2e-5)


@pytest.mark.parametrize("num_frames", [4, 1])
@torch.no_grad()
def test_frames_are_encoded_each_by_itself(num_frames):
    torch.manual_seed(0)
    encoder = VideoEncoder(
        img_size=16, patch_size=8, num_frames=num_frames, embed_dim=24, depth=1, num_heads=2
    )
    video = torch.randn(2, 3, 4, 16, 16)
    features = frame_features(encoder, video)
    alone = frame_features(encoder, video[:, :, 2:3])
    torch.testing.assert_close(features[:, 8:12], alone)
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)
    video[:, :, 3] += 1
    assert torch.equal(frame_features(encoder, video)[:, :12], features[:, :12])


@torch.no_grad()
def test_a_roll_out_sees_no_true_frame_after_its_start():
    predictor, (features, *given) = tiny(), episode()
    two = TokenGrid(2, 2, 2)
    rollout = rolled_out(predictor, features[:, :8], *given, grid=two, num_steps=2)
    forced = teacher_forced(predictor, features, *given, grid=GRID)
    torch.testing.assert_close(rollout[:, :4], forced[:, 4:8], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(rollout[:, 4:], forced[:, 8:], atol=1e-3)
    again = torch.cat([features[:, :8], rollout[:, :4]], dim=1)
    three = TokenGrid(3, 2, 2)
    torch.testing.assert_close(
        rolled_out(predictor, again, *given, grid=three, num_steps=1), rollout[:, 4:], atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_actions_states_and_camera_are_taken_step_by_step():
    predictor, (features, *given) = tiny(), episode()
    base = teacher_forced(predictor, features, *given, grid=GRID)
    for i in range(3):
        moved = [x.clone() for x in given]
        moved[i][:, 1] += 1
        other = teacher_forced(predictor, features, *moved, grid=GRID)
        assert torch.equal(other[:, :4], base[:, :4])
        assert not torch.allclose(other[:, 4:8], base[:, 4:8], atol=1e-3)
        last = [x.clone() for x in given]
        last[i][:, 3:] += 1  # the state at the last frame is not looked at
        assert torch.equal(teacher_forced(predictor, features, *last, grid=GRID), base)


def test_exponent_and_length_of_the_roll_out():
    predictor, (features, *given) = tiny(), episode()
    with torch.no_grad():
        forced, rollout = action_losses(predictor, features, *given, grid=GRID)
        squared, _ = action_losses(predictor, features, *given, grid=GRID, loss_exp=2.0)
        same, longer = action_losses(predictor, features, *given, grid=GRID, num_steps=3)
    z = teacher_forced(predictor, features, *given, grid=GRID).detach()
    torch.testing.assert_close(squared, (z - features[:, 4:]).square().mean() / 2)
    assert same == forced and longer != rollout


def test_the_gradient_goes_through_the_roll_out():
    predictor, (features, actions, states, _) = tiny(), episode()
    actions.requires_grad_()
    _, rollout = action_losses(predictor, features, actions, states, grid=GRID, num_steps=3)
    rollout.backward()
    assert all(actions.grad[:, i].abs().max() > 0 for i in range(3))
    grads = {name: p.grad is not None for name, p in predictor.named_parameters()}
    assert {name for name, given in grads.items() if not given} == {
        "extrinsics_encoder.weight", "extrinsics_encoder.bias",
    }  # fmt: skip


@pytest.mark.parametrize("num_steps", [0, 4])
def test_a_roll_out_beyond_the_episode_is_refused_and_the_advice_holds(num_steps):
    predictor, (features, *given) = tiny(), episode()
    with pytest.raises(ValueError, match="has 1 to 3 to roll out. Lower num_steps"):
        action_losses(predictor, features, *given, grid=GRID, num_steps=num_steps)
    action_losses(predictor, features, *given, grid=GRID, num_steps=3)
