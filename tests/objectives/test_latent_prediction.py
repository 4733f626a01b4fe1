"""Latent prediction: two published training steps, and what each part does."""

import pytest
import torch

from tests.masks.given import Given
from tests.reference import encoder_arguments, load_strictly, reference_case
from vjepa.errors import SettingError
from vjepa.layers import cross_masks, gather_tokens
from vjepa.masks import Causal, MaskStrategy, TubeBlocks
from vjepa.masks.rank_rows import RankRows
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import DensePrediction, LatentPrediction
from vjepa.optim import Constant, Cosine, Linear, WarmupCosine, decay_groups, ema_update
from vjepa.types import ClipBatch, MaskPair, TokenGrid

V1, V2 = reference_case("vjepa1_train_steps"), reference_case("vjepa2_train_steps")

NO_IDS = torch.empty(1, 0, dtype=torch.int64)


def batch_of(video: torch.Tensor) -> ClipBatch:
    rows = torch.arange(len(video))
    return ClipBatch(video=video, label=rows, index=rows)


def published_objective() -> LatentPrediction:
    about = V1.about["ctor"]
    masks = [Given(MaskPair(V1.tensors[f"in.mask_enc{i}"], V1.tensors[f"in.mask_pred{i}"])) for i in (0, 1)]
    objective = LatentPrediction(
        encoder=VideoEncoder(**encoder_arguments(about["encoder"])),
        predictor=lambda width: Predictor(width, embed_dim=36, depth=1, num_heads=2, position="sincos"),
        masks=masks,
    )
    parts = {
        "encoder": objective.context_encoder,
        "predictor": objective.predictor,
        "target": objective.target_encoder,
    }
    for name, network in parts.items():
        load_strictly(network, V1.weights(f"w.{name}."))
    return objective


def tiny(masks=None, **arguments) -> LatentPrediction:
    torch.manual_seed(0)
    return LatentPrediction(
        encoder=VideoEncoder(img_size=32, patch_size=8, num_frames=8, embed_dim=24, depth=1, num_heads=2),
        predictor=lambda width: Predictor(width, embed_dim=24, depth=1, num_heads=2),
        masks=masks or [TubeBlocks(), Causal()],
        **arguments,
    )


def clips() -> ClipBatch:
    return batch_of(torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_two_published_steps_of_vjepa_1():
    objective, batch = published_objective(), batch_of(V1.tensors["in.x"])
    optimizer = torch.optim.AdamW(decay_groups(objective.context_encoder, objective.predictor))
    lr = WarmupCosine(start=0.002, peak=0.006, end=1e-6, warmup=2.0, stretch=1.25)
    weight_decay, momentum = (
        Cosine(start=0.04, end=0.4, stretch=1.25),
        Linear(start=0.99, end=1.0, stretch=1.25),
    )
    networks = {
        "encoder": objective.context_encoder,
        "predictor": objective.predictor,
        "target": objective.target_encoder,
    }
    for step, expected in enumerate(V1.about["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = lr.value(step, 4)
            group["weight_decay"] = weight_decay.value(step, 4) if group["decay"] else 0.0
        assert (group["lr"], weight_decay.value(step, 4)) == pytest.approx((expected["lr"], expected["wd"]))
        assert momentum.value(step, 4) == pytest.approx(expected["momentum"])
        optimizer.zero_grad()
        loss = objective(batch, torch.Generator()).loss
        loss.backward()
        assert loss.item() == pytest.approx(expected["loss"], abs=1e-5)
        if step == 0:
            check(
                V1,
                "out.grad.",
                {k: dict(n.named_parameters()) for k, n in networks.items()},
                of_gradient=True,
            )
        for name, key in (("encoder", "enc_grad_norm"), ("predictor", "pred_grad_norm")):
            norm = torch.nn.utils.clip_grad_norm_(networks[name].parameters(), 10.0)
            assert norm.item() == pytest.approx(expected[key], rel=1e-3)
        optimizer.step()
        ema_update(objective.ema_pairs(), momentum.value(step, 4))
    check(V1, "out.after2.", {k: dict(n.named_parameters()) for k, n in networks.items()})


def check(case, prefix, parameters, *, of_gradient=False):
    names = [k for k in case.tensors if k.startswith(prefix)]
    assert names
    for key in names:
        network, name = key.removeprefix(prefix).split(".", 1)
        parameter = parameters[network][name]
        case.assert_close(parameter.grad if of_gradient else parameter.detach(), key)


@torch.no_grad()
def test_published_predictions_of_vjepa_2():
    about = V2.about["ctor"]
    encoder = load_strictly(VideoEncoder(**encoder_arguments(about["encoder"])), V2.weights("w.encoder."))
    sizes = {k: about["predictor"][k] for k in ("depth", "num_heads", "num_mask_tokens")}
    predictor = load_strictly(Predictor(40, embed_dim=36, **sizes), V2.weights("w.predictor."))
    for length in (0, 1):  # clips of 8 and of 4 frames; the mask token is that of the length, not of the mask
        video = V2.tensors[f"in.clips{length}"]
        for group in (0, 1):
            keep, hidden = (V2.tensors[f"in.mask_{part}{length}{group}"] for part in ("enc", "pred"))
            context = encoder(video, keep)
            predicted = predictor(context, keep, hidden, grid=encoder.grid_of(video), mask_token=length)
            V2.assert_close(predicted, f"out.pred{length}{group}")


def test_two_published_steps_of_vjepa_2():
    about, lengths = V2.about["ctor"], (0, 1)  # clips of 8 frames and of 4, of two mask groups each
    videos = [V2.tensors[f"in.clips{i}"] for i in lengths]
    pairs = [
        [MaskPair(V2.tensors[f"in.mask_enc{i}{k}"], V2.tensors[f"in.mask_pred{i}{k}"]) for k in (0, 1)]
        for i in lengths
    ]
    sizes = {k: about["predictor"][k] for k in ("depth", "num_heads", "num_mask_tokens")}
    objective = LatentPrediction(
        encoder=VideoEncoder(**encoder_arguments(about["encoder"])),
        predictor=lambda width: Predictor(width, embed_dim=36, **sizes),
        masks=[Given(pair) for pair in pairs[0]],
    )
    networks = {
        "encoder": objective.context_encoder,
        "predictor": objective.predictor,
        "target": objective.target_encoder,
    }
    for name, network in networks.items():
        load_strictly(network, V2.weights(f"w.{name}."))
    optimizer = torch.optim.AdamW(decay_groups(objective.context_encoder, objective.predictor))
    for expected in V2.about["steps"]:
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = expected["lr"], expected["wd"] if group["decay"] else 0.0
        optimizer.zero_grad()
        losses = []
        for i in lengths:
            targets, grid = objective.targets(videos[i]), objective.context_encoder.grid_of(videos[i])
            for pair in pairs[i]:
                predicted = objective.predict(videos[i], pair, grid, i)  # as theirs: a mask token a length
                losses.append(objective.distance(predicted, gather_tokens(targets, pair.target)))
        loss = torch.stack(losses).mean()
        loss.backward()
        assert loss.item() == pytest.approx(expected["loss"], abs=1e-5)
        for name, key in (("encoder", "enc_grad_norm"), ("predictor", "pred_grad_norm")):
            grads = [p.grad for p in networks[name].parameters() if p.grad is not None]
            assert torch.nn.utils.get_total_norm(grads).item() == pytest.approx(expected[key], rel=1e-3)
        optimizer.step()
        ema_update(objective.ema_pairs(), expected["momentum"])
    check(V2, "out.after2.", {k: dict(n.named_parameters()) for k, n in networks.items()})


def test_loss_is_the_mean_over_masks_and_each_is_logged():
    output = tiny()(clips(), torch.Generator().manual_seed(0))
    parts = torch.stack([output.metrics["loss_mask0"], output.metrics["loss_mask1"]])
    torch.testing.assert_close(output.loss.detach(), parts.mean())
    assert output.predictions.shape == output.targets.shape


def test_exponent_of_the_loss():
    distances = [
        tiny(loss_exp=p).distance(torch.full((1, 1, 2), 3.0), torch.ones(1, 1, 2)) for p in (1.0, 2.0)
    ]
    assert [d.item() for d in distances] == [2.0, 2.0]  # |2|, |2|^2 / 2
    assert tiny(loss_exp=2.0).distance(torch.full((1, 1, 2), 4.0), torch.ones(1, 1, 2)) == 4.5


def test_gradients_reach_what_is_trained_and_nothing_else():
    objective = tiny()
    objective(clips(), torch.Generator().manual_seed(0)).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.target_encoder.parameters())
    assert all(p.grad is not None for p in objective.context_encoder.parameters())
    assert all(token.grad is not None and token.grad.any() for token in objective.predictor.mask_tokens)


def test_targets_are_normed_and_start_as_the_encoders_own():
    objective = tiny()
    targets = objective.targets(clips().video)
    torch.testing.assert_close(targets.mean(-1), torch.zeros(2, 64), atol=1e-5, rtol=0)
    tokens = objective.context_encoder(clips().video)
    torch.testing.assert_close(targets, torch.nn.functional.layer_norm(tokens, (24,)).detach())


def test_masks_follow_the_generator():
    objective = tiny()
    losses = [objective(clips(), torch.Generator().manual_seed(s)).loss.item() for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_no_mask_is_refused_and_the_advice_holds():
    with pytest.raises(ValueError, match="vjepa.masks.TubeBlocks"):
        LatentPrediction(encoder=tiny().context_encoder, predictor=lambda w: Predictor(w), masks=[])
    tiny(masks=[TubeBlocks()])


@torch.no_grad()
def test_hidden_pixels_do_not_reach_the_predictions():
    objective, video = tiny(), clips().video
    grid = TokenGrid(4, 4, 4)
    pair = MaskPair(context=torch.arange(0, 64, 2).expand(2, -1), target=torch.arange(1, 64, 2).expand(2, -1))
    noisy = video.clone()
    noisy[..., 8:16] += 1  # columns of patches 1: odd ids
    noisy[..., 24:32] -= 1
    assert torch.equal(objective.predict(video, pair, grid, 0), objective.predict(noisy, pair, grid, 0))


def test_published_loss_of_ijepa():
    case = reference_case("ijepa_encoder_predictor")
    ctor = case.about["ctor"]
    sizes = {"img_size": ctor["img"], "patch_size": ctor["ps"], "num_frames": 1, "embed_dim": ctor["dim"]}
    objective = LatentPrediction(
        encoder=VideoEncoder(**sizes, depth=ctor["depth"], num_heads=ctor["heads"], position="sincos_wh"),
        predictor=lambda width: Predictor(
            width,
            embed_dim=ctor["pd"],
            depth=ctor["pdepth"],
            num_heads=ctor["heads"],
            position="sincos_wh",
            num_mask_tokens=1,
        ),
        masks=[Apart([case.tensors[f"in.mask_pred{i}"] for i in range(4)], case.tensors["in.mask_enc0"])],
        loss_exp="smooth",
    )
    weights = case.weights("w.predictor.")
    weights["mask_tokens.0"] = weights.pop("mask_token")
    load_strictly(objective.predictor, weights)
    for network in (objective.context_encoder, objective.target_encoder):
        load_strictly(network, case.weights("w.encoder."))
    output = objective(batch_of(case.tensors["in.x"][:, :, None]), torch.Generator())
    case.assert_close(output.predictions.reshape(8, 4, 48), "out.pred")
    case.assert_close(output.targets.reshape(8, 4, 48), "out.target")
    case.assert_close(output.loss.detach()[None], "out.loss")


class Apart(Given):
    """Given targets, each by itself, of one context."""

    def __init__(self, targets, context) -> None:
        super().__init__(cross_masks([context], targets))

    def sample_apart(self, grid, batch_size, generator):
        return self.pair


@torch.no_grad()
def test_a_target_apart_is_predicted_as_if_it_were_alone():
    context = torch.arange(8).expand(2, -1)
    blocks = [torch.arange(start, start + 6).expand(2, -1) for start in (10, 30)]
    together = tiny([Apart(blocks, context)])(clips(), torch.Generator())
    alone = [tiny([Given(MaskPair(context, block))])(clips(), torch.Generator()) for block in blocks]
    torch.testing.assert_close(together.predictions, torch.cat([one.predictions for one in alone]))
    torch.testing.assert_close(together.targets, torch.cat([one.targets for one in alone]))
    torch.testing.assert_close(together.loss, torch.stack([one.loss for one in alone]).mean())


def test_smooth_distance():
    near, far = torch.full((1, 1, 2), 1.5), torch.full((1, 1, 2), 4.0)
    distances = [tiny(loss_exp="smooth").distance(z, torch.ones(1, 1, 2)).item() for z in (near, far)]
    assert distances == [0.125, 2.5]  # 0.5 ** 2 / 2, 3 - 0.5


def test_a_mask_token_for_each_length_trains_that_token_alone():
    whole, half = clips(), batch_of(clips().video[:, :, :4])
    for batch, trained in ((whole, 1), (half, 0)):
        objective = tiny(frame_counts=(4, 8))
        objective(batch, torch.Generator().manual_seed(0)).loss.backward()
        tokens = [
            token.grad is not None and bool(token.grad.any()) for token in objective.predictor.mask_tokens
        ]
        assert tokens == [trained == 0, trained == 1]
    assert tiny().mask_token_numbers(8) == tiny().mask_token_numbers(4) == [0, 1]


def test_a_length_without_a_mask_token_is_refused_and_the_advice_holds():
    with pytest.raises(ValueError, match="Add their count to frame_counts, or omit it"):
        tiny(frame_counts=(4, 16))(clips(), torch.Generator())
    tiny(frame_counts=(4, 16, 8))(clips(), torch.Generator())
    tiny()(clips(), torch.Generator())


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("empty", ["context", "target"])
@pytest.mark.parametrize("kind", [LatentPrediction, DensePrediction])
def test_masks_without_context_or_target_are_refused_by_name(kind, empty, ranks):
    ids = {"context": torch.arange(4)[None], "target": torch.arange(4, 8)[None]} | {empty: NO_IDS}
    mask: MaskStrategy = Given(MaskPair(**ids))
    levels, sizes = ((0,), 1) if kind is DensePrediction else ((), 0), {"depth": 1, "num_heads": 2}
    objective = kind(
        encoder=VideoEncoder(
            img_size=16, patch_size=8, num_frames=4, embed_dim=24, levels=levels[0], **sizes
        ),
        predictor=lambda width: Predictor(width, embed_dim=24, num_levels=levels[1], **sizes),
        masks=[mask if ranks == 1 else RankRows(strategy=mask, rank=0, world_size=ranks)],
        **({"context_weight": Constant(at=0.5)} if kind is DensePrediction else {}),
    )
    told = f"the mask strategy Given leaves no {empty} on a grid .t, h, w. of .2, 2, 2.. Change its settings"
    with pytest.raises(SettingError, match=told):
        objective(batch_of(torch.randn(2, 3, 4, 16, 16)), torch.Generator())
