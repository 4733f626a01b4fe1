"""The predictor: the published networks to their tolerance, and what each argument does."""

import pytest
import torch

from tests.reference import load_strictly, reference_case
from vjepa.layers import gather_tokens
from vjepa.models import Predictor
from vjepa.types import TokenGrid

GRID = TokenGrid(4, 4, 4)
FORWARDS = [  # case, context, its ids, target ids, mask token, output
    ("vjepa1_predictor", "ctx0", "mask_enc0", "mask_pred0", 0, "pred0"),
    ("vjepa1_predictor", "ctx1", "mask_enc1", "mask_pred1", 1, "pred1"),
    ("vjepa1_predictor", "ctx0", "mask_enc0", "mask_pred0", 1, "pred0_default_index"),
    ("vjepa2_predictor_rope", "ctx", "mask_ctx", "mask_tgt", 1, "default"),
    ("vjepa2_predictor_rope", "ctx", "mask_ctx", "mask_tgt", 0, "mask_index0"),
    ("vjepa2_predictor_rope", "ctx", "mask_ctx", "mask_tgt", 6, "mask_index6"),  # modulo the number of tokens
    ("vjepa2_predictor_rope", "ctx", "mask_ctx", "mask_tgt_shuffled", 1, "tgt_shuffled"),
    ("vjepa2_predictor_rope", "ctx", "mask_ctx", "mask_tgt2", 1, "tgt2"),
    ("vjepa2_predictor_rope", "ctx_all", None, None, 1, "all_to_all"),
]


def reference_predictor(name):
    case = reference_case(name)
    ctor = case.about["ctor"]
    sizes = {k: ctor[k] for k in ("depth", "num_heads", "num_mask_tokens")} | {
        "mlp_ratio": float(ctor["mlp_ratio"])
    }
    position = "rope" if ctor.get("use_rope") else "sincos"
    predictor = Predictor(
        ctor["embed_dim"], embed_dim=ctor["predictor_embed_dim"], position=position, **sizes
    )
    return case, load_strictly(predictor, case.weights())


def tiny(**arguments) -> Predictor:
    torch.manual_seed(0)
    settings = {"embed_dim": 24, "depth": 2, "num_heads": 2, "mask_token_std": 0.5}
    return Predictor(48, **{**settings, **arguments}).eval()


@pytest.mark.parametrize(("name", "context", "context_ids", "target_ids", "mask_token", "expected"), FORWARDS)
@torch.no_grad()
def test_published_predictors(name, context, context_ids, target_ids, mask_token, expected):
    case, predictor = reference_predictor(name)
    everything = torch.arange(len(GRID))[None]
    ids = [everything if k is None else case.tensors[f"in.{k}"] for k in (context_ids, target_ids)]
    predicted = predictor(case.tensors[f"in.{context}"], *ids, grid=GRID, mask_token=mask_token)
    case.assert_close(predicted, f"out.{expected}")


@torch.no_grad()
def test_published_tokens_of_context_and_targets_by_id():
    case, predictor = reference_predictor("vjepa2_predictor_rope")
    context, seen, hidden = (case.tensors[f"in.{k}"] for k in ("ctx", "mask_ctx", "mask_tgt"))
    tokens = predictor.forward_tokens(context, seen, hidden, grid=GRID, mask_token=1)
    by_id = gather_tokens(tokens, torch.cat([seen, hidden], dim=1).argsort(dim=1))
    projected = predictor.predictor_proj(predictor.predictor_norm(by_id))
    case.assert_close(projected, "out.return_all_tokens")


@pytest.mark.parametrize("position", ["sincos", "rope"])
@torch.no_grad()
def test_predictions_do_not_depend_on_the_order_of_the_context(position):
    predictor = tiny(position=position)
    context = torch.randn(1, 6, 48, generator=torch.Generator().manual_seed(0))
    ids, targets = torch.tensor([[0, 3, 9, 20, 33, 60]]), torch.tensor([[7, 40]])
    shuffled = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(
        predictor(context, ids, targets, grid=GRID),
        predictor(context[:, shuffled], ids[:, shuffled], targets, grid=GRID),
        atol=1e-5, rtol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("position", ["sincos", "rope", "rope_interpolated", "rope_stored"])
@torch.no_grad()
def test_place_mask_token_and_context_all_matter(position):
    predictor = tiny(position=position)
    for block in predictor.predictor_blocks:
        block.attn.qkv.weight *= 10  # at init all tokens attend alike
    context = torch.randn(1, 6, 48, generator=torch.Generator().manual_seed(0))
    ids, targets = torch.tensor([[0, 3, 9, 20, 33, 60]]), torch.tensor([[7]])
    base = predictor(context, ids, targets, grid=GRID)
    for other in (
        predictor(context, ids, targets + 1, grid=GRID),
        predictor(context, ids, targets, grid=GRID, mask_token=1),
        predictor(context + 1, ids, targets, grid=GRID),
        predictor(context, ids, targets, grid=TokenGrid(2, 4, 8)),
    ):
        assert not torch.allclose(base, other, atol=1e-4)


@torch.no_grad()
def test_kind_of_mlp_and_width_of_the_targets_change_the_outcome():
    context, seen = torch.ones(1, 2, 48), torch.tensor([[0, 1]])
    predictions = [tiny(mlp=k)(context, seen, seen + 2, grid=GRID) for k in ("gelu", "swiglu", "swiglu_full")]
    assert all(not torch.allclose(a, b) for i, a in enumerate(predictions) for b in predictions[:i])
    assert tiny(out_dim=80)(context, seen, seen + 2, grid=GRID).shape == (1, 2, 80)


def test_the_context_is_predicted_by_vjepa21_alone_and_the_advice_holds():
    inputs = torch.ones(1, 2, 48), torch.tensor([[0, 1]]), torch.tensor([[2, 3, 4]])
    with pytest.raises(ValueError, match="num_levels=1 or more"):
        tiny().forward_dense(*inputs, grid=GRID)
    targets, context = tiny(num_levels=1).forward_dense(*inputs, grid=GRID)
    assert targets.shape == (1, 3, 48) and context.shape == (1, 2, 48)


@torch.no_grad()
def test_a_predictor_of_vjepa21_tells_images_from_videos():
    inputs = torch.ones(1, 2, 48), torch.tensor([[0, 1]]), torch.tensor([[2, 3, 4]])
    for num_levels, tells in ((0, False), (1, True)):
        predictor = tiny(num_levels=num_levels)
        if tells:
            torch.nn.init.ones_(predictor.img_mod_embed)  # it starts at about nothing
        video, image = (predictor(*inputs, grid=GRID, modality=m) for m in ("video", "image"))
        assert torch.equal(video, image) != tells


def test_width_first_is_for_images():
    with pytest.raises(ValueError, match="4 tubelets"):
        tiny(position="sincos_wh")(torch.ones(1, 1, 48), torch.tensor([[0]]), torch.tensor([[1]]), grid=GRID)


def test_mask_tokens_start_at_zero_unless_told():
    assert not any(token.any() for token in tiny(mask_token_std=0.0).mask_tokens)
    assert all(token.any() for token in tiny(num_mask_tokens=3).mask_tokens)
    assert len(tiny(num_mask_tokens=3).mask_tokens) == 3


@pytest.mark.parametrize(("num_mask_tokens", "count"), [(2, 22_082_944), (10, 22_086_016)])
def test_published_sizes(num_mask_tokens, count):
    with torch.device("meta"):
        assert Predictor(1024, num_mask_tokens=num_mask_tokens).num_parameters == count


def test_drop_path_rises_from_zero():
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for b in tiny(drop_path=0.2).predictor_blocks]
    assert rates == pytest.approx([0.0, 0.2])
