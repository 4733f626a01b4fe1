"""The action-conditioned predictor: the published network to its tolerance, causality, what each argument does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import load_strictly, reference_case
from vjepa.models import ActionPredictor
from vjepa.models.action_predictor import block_causal
from vjepa.types import TokenGrid

GRID = TokenGrid(4, 3, 3)


def episode(grid=GRID, seed=0, num_episodes=2):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((len(grid), 40), (grid.t, 7), (grid.t, 7), (grid.t, 6))
    return [torch.randn(num_episodes, *shape, generator=generator) for shape in shapes]


def tiny(**arguments) -> ActionPredictor:
    torch.manual_seed(0)
    sizes = {"embed_dim": 36, "depth": 2, "num_heads": 3, "grid_size": 3}
    predictor = ActionPredictor(40, **{**sizes, **arguments}).eval()
    for block in predictor.predictor_blocks:
        block.attn.qkv.weight.data *= 20  # at init all tokens attend alike
    return predictor


@pytest.mark.parametrize("name", ["ac_predictor", "ac_predictor_extrinsics"])
@pytest.mark.parametrize(("num_frames", "expected"), [(4, "full"), (2, "T2")])
@torch.no_grad()
def test_published_predictors(name, num_frames, expected):
    case = reference_case(name)
    ctor = case.about["ctor"]
    sizes = {"embed_dim": ctor["predictor_embed_dim"]} | {k: ctor[k] for k in ("depth", "num_heads")}
    predictor = ActionPredictor(ctor["embed_dim"], grid_size=4, **sizes)
    load_strictly(predictor, case.weights())
    grid = TokenGrid(num_frames, 4, 4)
    names = ["actions", "states"] + ["extrinsics"] * ctor["use_extrinsics"]
    steps = [case.tensors[f"in.{k}"][:, :num_frames] for k in names]
    predicted = predictor(case.tensors["in.tokens"][:, : len(grid)], *steps, grid=grid)
    case.assert_close(predicted, f"out.{expected}")


@pytest.mark.parametrize(("name", "per_step"), [("ac_predictor", 18), ("ac_predictor_extrinsics", 19)])
def test_published_attention(name, per_step):
    expected = reference_case(name).tensors["out.attn_mask_T4"].bool()
    assert torch.equal(block_causal(4, per_step), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=10, deadline=None)
@given(step=st.integers(1, 3), height=st.integers(1, 3), width=st.integers(1, 4), extrinsics=st.booleans())
@torch.no_grad()
def test_what_comes_later_changes_nothing(dtype, step, height, width, extrinsics):
    grid = TokenGrid(4, height, width)
    predictor = tiny().to(dtype)
    inputs = [x.to(dtype) for x in episode(grid, num_episodes=1)][: 4 if extrinsics else 3]
    others = [x.to(dtype) for x in episode(grid, seed=1, num_episodes=1)]
    changed = []
    for x, other in zip(inputs, others, strict=False):
        per_step = x.shape[1] // grid.t
        changed.append(torch.cat([x[:, : step * per_step], 10 * other[:, step * per_step :]], dim=1))
    before, after = predictor(*inputs, grid=grid), predictor(*changed, grid=grid)
    seen = step * height * width
    assert (before[:, :seen] - after[:, :seen]).abs().max() <= 1e-6
    assert not torch.allclose(before[:, seen:], after[:, seen:], atol=1e-2)


@torch.no_grad()
def test_a_shorter_episode_is_predicted_alike():
    predictor, short = tiny(), TokenGrid(2, 3, 3)
    frames, actions, states, _ = episode()
    whole = predictor(frames, actions, states, grid=GRID)
    part = predictor(frames[:, : len(short)], actions[:, :2], states[:, :2], grid=short)
    torch.testing.assert_close(part, whole[:, : len(short)], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_all_that_is_given_matters():
    predictor, inputs = tiny(), episode()
    base = predictor(*inputs, grid=GRID)
    for i in range(4):
        moved = [x + (i == k) for k, x in enumerate(inputs)]
        assert not torch.allclose(predictor(*moved, grid=GRID), base, atol=1e-3)
    assert not torch.allclose(predictor(*inputs[:3], grid=GRID), base, atol=1e-3)
    assert not torch.allclose(predictor(*inputs, grid=TokenGrid(4, 1, 9)), base, atol=1e-3)


@torch.no_grad()
def test_places_are_scaled_to_the_grid_of_training():
    frames, actions, states, _ = episode()
    outputs = [tiny(grid_size=size)(frames, actions, states, grid=GRID) for size in (3, 6)]
    assert not torch.allclose(*outputs, atol=1e-3)
    coarse, fine = (tiny(grid_size=4)._rotary(TokenGrid(1, n, n), 2, torch.device("cpu")) for n in (2, 4))
    # the patch at (1, 1) of 2 x 2 lies at (2, 2) of 4 x 4; two tokens stand before the patches
    assert torch.equal(coarse.cos[0, 0, 2 + 1 * 2 + 1], fine.cos[0, 0, 2 + 2 * 4 + 2])


def test_wrong_numbers_of_tokens_or_actions_are_refused_and_the_advice_holds():
    predictor = tiny()
    frames, actions, states, _ = episode()
    with pytest.raises(ValueError, match="Give 36 tokens and 4 actions"):
        predictor(frames[:, :35], actions, states, grid=GRID)
    with pytest.raises(ValueError, match="one per frame, including the last"):
        predictor(frames, actions[:, :3], states[:, :3], grid=GRID)
    assert predictor(frames, actions, states, grid=GRID).shape == frames.shape


def test_published_size():
    with torch.device("meta"):
        assert ActionPredictor(1408).num_parameters == 305_220_992


def test_sizes_of_what_is_given():
    predictor = tiny(action_dim=2, state_dim=3, extrinsics_dim=4, mlp_ratio=2.0)
    frames, *_ = episode()
    steps = [torch.randn(2, 4, k) for k in (2, 3, 4)]
    assert predictor(frames, *steps, grid=GRID).shape == frames.shape
    assert predictor.predictor_blocks[0].mlp.fc1.out_features == 72


@torch.no_grad()
def test_config_and_weights_make_it_again():
    predictor, inputs = tiny(), episode()
    twin = ActionPredictor(**predictor.config).eval()
    twin.load_state_dict(predictor.state_dict())
    assert torch.equal(twin(*inputs, grid=GRID), predictor(*inputs, grid=GRID))
