"""Dense prediction: the derived case of V-JEPA 2.1, and what each part of the loss does."""

import pytest
import torch

from tests.masks.given import Given
from tests.reference import load_strictly, reference_case
from vjepa.masks import TubeBlocks
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import DensePrediction
from vjepa.objectives.dense_prediction import context_weights
from vjepa.optim import Constant, Linear
from vjepa.types import ClipBatch, MaskPair, TokenGrid

CASE = reference_case("vjepa21_derived")
PAIR = MaskPair(context=torch.tensor([[0, 1, 2]]), target=torch.tensor([[6, 7]]))  # of 2 x 2 x 2 tokens


def batch_of(video: torch.Tensor) -> ClipBatch:
    rows = torch.arange(len(video))
    return ClipBatch(video=video, label=rows, index=rows)


def derived(pair: MaskPair) -> DensePrediction:
    ctor = CASE.about["ctor"]
    clip = {k: ctor[k] for k in ("img_size", "patch_size", "num_frames", "tubelet_size")}
    levels, position = tuple(ctor["hierarchical_layers"]), "rope_interpolated"
    objective = DensePrediction(
        encoder=VideoEncoder(
            **clip, embed_dim=ctor["dim"], depth=ctor["depth"], num_heads=ctor["heads"],
            mlp_ratio=float(ctor["mlp"]), position=position, levels=levels,
        ),
        predictor=lambda width: Predictor(
            width, embed_dim=ctor["pd"], depth=ctor["pdep"], num_heads=ctor["ph"], position=position,
            num_mask_tokens=ctor["num_mask_tokens"], num_levels=len(levels),
        ),
        masks=[Given(pair)],
        context_weight=Constant(at=0.5),
    )  # fmt: skip
    for encoder in (objective.context_encoder, objective.target_encoder):
        load_strictly(encoder, CASE.weights("w.encoder."))
    load_strictly(objective.predictor, CASE.weights("w.predictor."))
    return objective


def tiny(masks=None, *, levels=(0, 1), num_levels=2, **arguments) -> DensePrediction:
    torch.manual_seed(0)
    return DensePrediction(
        encoder=VideoEncoder(
            img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=2, num_heads=2, levels=levels
        ),
        predictor=lambda width: Predictor(width, embed_dim=12, depth=1, num_heads=1, num_levels=num_levels),
        masks=masks or [Given(PAIR)],
        **{"context_weight": Constant(at=0.5), **arguments},
    )


def clips(num_frames: int = 4) -> ClipBatch:
    return batch_of(torch.randn(2, 3, num_frames, 16, 16, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def test_derived_predictions_and_targets():
    pair = MaskPair(context=CASE.tensors["in.mask_ctx"], target=CASE.tensors["in.mask_tgt"])
    objective, video = derived(pair), CASE.tensors["in.video"]
    grid = objective.context_encoder.grid_of(video)
    hidden, seen = objective.predict_levels(video, pair, grid, 1)
    CASE.assert_close(hidden, "out.pred")
    CASE.assert_close(seen, "out.pred_context")
    levels = [torch.nn.functional.layer_norm(x, (24,)) for x in CASE.tensors["out.video_hier"].split(24, -1)]
    targets = objective.targets(video)
    torch.testing.assert_close(targets, torch.cat(levels, -1), **CASE.about["tolerance"])

    hidden, seen = objective.predict_levels(video, pair, grid, 0)  # the token of the first mask strategy
    output = objective(batch_of(video), torch.Generator())
    expected = (hidden - targets[:, pair.target[0]]).abs().mean()
    torch.testing.assert_close(output.metrics["loss_hidden"], expected)
    distances = (seen - targets[:, pair.context[0]]).abs().mean(-1)
    expected = (distances * context_weights(pair, grid)).mean()
    torch.testing.assert_close(output.metrics["loss_context"], expected)


def test_weights_fall_with_the_distance_to_what_is_hidden():
    # of 2 x 2 x 2 tokens, 6 and 7 are the lower row of the second time; token 0 is the upper left of the first
    squares = context_weights(PAIR, TokenGrid(2, 2, 2)).pow(-4)
    torch.testing.assert_close(squares, torch.tensor([[2.0, 2.0, 1.0]]))
    far = MaskPair(context=torch.tensor([[0]]), target=torch.tensor([[32 * 4]]))
    assert context_weights(far, TokenGrid(1, 32, 32)).item() == 0.5
    assert context_weights(far, TokenGrid(1, 32, 32), 16).item() == pytest.approx(2**-0.5)
    assert context_weights(far, TokenGrid(1, 32, 32), 64).item() == 0.5


@torch.no_grad()
def test_the_loss_is_its_parts_by_the_weight_of_the_step_and_the_kind_of_clip():
    objective = tiny(context_weight=Linear(start=0.0, end=1.0), image_context_weight=Constant(at=0.25))

    def weight(frames: int) -> float:
        masks = {1: MaskPair(context=torch.tensor([[0]]), target=torch.tensor([[3]])), 4: PAIR}
        objective.masks = [Given(masks[frames])]
        output = objective(clips(frames), torch.Generator())
        return ((output.loss - output.metrics["loss_hidden"]) / output.metrics["loss_context"]).item()

    assert weight(4) == pytest.approx(1.0)  # of a run that is only validated: its end
    objective.set_step(1, 4)
    assert weight(4) == pytest.approx(0.25) and weight(1) == pytest.approx(0.25)
    objective.set_step(3, 4)
    assert weight(4) == pytest.approx(0.75) and weight(1) == pytest.approx(0.25)
    assert tiny().weights == {"video": 0.5, "image": 0.5}


@torch.no_grad()
def test_distances_of_larger_grids_can_be_counted_in_those_of_a_smaller():
    losses = [tiny(distance_side=side)(clips(), torch.Generator()).loss for side in (None, 1, 2)]
    assert losses[0] == losses[2] < losses[1]


def test_context_and_levels_get_a_gradient_and_the_target_encoder_none():
    objective = tiny([TubeBlocks(num_blocks=1)])
    objective(clips(), torch.Generator().manual_seed(0)).loss.backward()
    assert objective.predictor.predictor_proj_context.weight.grad.any()
    assert all(norm.weight.grad.any() for norm in objective.context_encoder.norms_block)
    assert all(p.grad is None for p in objective.target_encoder.parameters())
    assert objective.ema_pairs() == [(objective.target_encoder, objective.context_encoder)]
    assert not objective.train().target_encoder.training


@pytest.mark.parametrize(("levels", "num_levels"), [((), 2), ((0, 1), 0), ((0, 1), 1)])
def test_levels_of_encoder_and_predictor_must_agree(levels, num_levels):
    with pytest.raises(ValueError, match="Give the encoder levels"):
        tiny(levels=levels, num_levels=num_levels)
    tiny(levels=(1,), num_levels=1)
