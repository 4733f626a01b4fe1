"""Released families that differ in parts, whole and to their tolerance: I-JEPA, intuitive physics, V-JEPA 2.1."""

import pytest
import torch
from torch.nn import functional as F

import vjepa
from tests.reference import load_strictly, reference_case
from vjepa.layers import cross_masks, gather_tokens
from vjepa.models import Predictor, VideoEncoder
from vjepa.types import TokenGrid

PHYSICS = {"position": "rope_stored", "mlp": "swiglu_full"}


def ijepa():
    case = reference_case("ijepa_encoder_predictor")
    ctor = case.about["ctor"]
    sizes = {"img_size": ctor["img"], "patch_size": ctor["ps"], "num_frames": 1, "embed_dim": ctor["dim"]}
    encoder = VideoEncoder(**sizes, depth=ctor["depth"], num_heads=ctor["heads"], position="sincos_wh")
    predictor = Predictor(
        ctor["dim"], embed_dim=ctor["pd"], depth=ctor["pdepth"], num_heads=ctor["heads"],
        position="sincos_wh", num_mask_tokens=1,
    )  # fmt: skip
    weights = case.weights("w.predictor.")
    weights["mask_tokens.0"] = weights.pop("mask_token")
    return case, load_strictly(encoder, case.weights("w.encoder.")), load_strictly(predictor, weights)


@torch.no_grad()
def test_published_ijepa():
    case, encoder, predictor = ijepa()
    images = case.tensors["in.x"][:, :, None]
    seen = [case.tensors["in.mask_enc0"]]
    pairs = cross_masks(seen, [case.tensors[f"in.mask_pred{i}"] for i in range(4)])
    full, context = encoder(images), encoder(images, keep=seen[0])
    case.assert_close(full, "out.full")
    case.assert_close(context, "out.ctx")
    predicted = predictor(context.repeat(4, 1, 1), pairs.context, pairs.target, grid=encoder.native_grid)
    case.assert_close(predicted, "out.pred")
    targets = gather_tokens(F.layer_norm(full, full.shape[-1:]).repeat(4, 1, 1), pairs.target)
    case.assert_close(targets, "out.target")
    case.assert_close(F.smooth_l1_loss(predicted, targets)[None], "out.loss")


def test_ijepa_table_from_scratch_is_the_published_one():
    case, encoder, _ = ijepa()
    torch.testing.assert_close(encoder.pos_embed, case.tensors["w.encoder.pos_embed"], atol=1e-7, rtol=0.0)


def physics(part: str):
    case = reference_case("intuitive_physics_surprise")
    ctor = case.about["ctor"]
    if part == "predictor":
        sizes = {"embed_dim": ctor["pd"], "depth": ctor["pdepth"], "num_heads": ctor["heads"]}
        network = Predictor(ctor["dim"], **sizes, **PHYSICS)
    else:
        sizes = {"embed_dim": ctor["dim"], "depth": ctor["depth"], "num_heads": ctor["heads"]}
        clip = {"img_size": ctor["img"], "patch_size": ctor["ps"], "num_frames": ctor["frames"]}
        network = VideoEncoder(**clip, **sizes, **PHYSICS)
    return load_strictly(network, case.weights(f"w.{part}."))


@torch.no_grad()
def test_published_surprise():
    case = reference_case("intuitive_physics_surprise")
    encoder, target_encoder, predictor = (physics(part) for part in ("encoder", "target", "predictor"))
    ids, grid, surprises = torch.arange(64)[None], TokenGrid(4, 4, 4), []
    for clip in case.tensors["in.clip"]:
        windows = torch.stack([clip[:, s : s + 8] for s in range(0, clip.shape[1] - 7, 2)])
        targets = target_encoder(windows)
        targets = F.layer_norm(targets, targets.shape[-1:])
        for frames in case.about["ctor"]["ctx"]:
            seen, hidden = ids.expand(len(windows), -1).split(
                [frames // 2 * 16, 64 - frames // 2 * 16], dim=1
            )
            predicted = predictor(encoder(windows, keep=seen), seen, hidden, grid=grid)
            if not surprises:
                case.assert_close(encoder(windows[:1]), "out.encoder_full")
                case.assert_close(predicted[:2], "out.pred_first_ctx")
            surprises.append((predicted - gather_tokens(targets, hidden)).abs().mean(dim=(1, 2)))
    losses = torch.stack(surprises).unflatten(0, (2, -1))
    case.assert_close(losses, "out.losses")
    case.assert_close(losses.amin(1), "out.filtered")
    case.assert_close(losses.amin(1).mean(1), "out.avg_surprise")
    case.assert_close(losses.amin(1).amax(1), "out.max_surprise")


def test_stored_frequencies_start_as_published():
    case = reference_case("intuitive_physics_surprise")
    fresh = VideoEncoder(
        img_size=32, patch_size=8, num_frames=8, embed_dim=36, depth=1, num_heads=2, **PHYSICS
    )
    stored = {k: v for k, v in fresh.state_dict().items() if k.endswith("freqs")}
    assert len(stored) == 3
    for name, frequencies in stored.items():
        torch.testing.assert_close(frequencies, case.tensors[f"w.encoder.{name}"])


def vjepa21():
    case = reference_case("vjepa21_derived")
    ctor = case.about["ctor"]
    clip = {k: ctor[k] for k in ("img_size", "patch_size", "num_frames", "tubelet_size")}
    sizes = {"embed_dim": ctor["dim"], "depth": ctor["depth"], "num_heads": ctor["heads"]}
    levels = tuple(ctor["hierarchical_layers"])
    encoder = VideoEncoder(
        **clip, **sizes, mlp_ratio=float(ctor["mlp"]), position="rope_interpolated", levels=levels
    )
    predictor = Predictor(
        ctor["dim"], embed_dim=ctor["pd"], depth=ctor["pdep"], num_heads=ctor["ph"],
        position="rope_interpolated", num_mask_tokens=ctor["num_mask_tokens"], num_levels=len(levels),
    )  # fmt: skip
    load_strictly(encoder, case.weights("w.encoder."))
    return case, encoder, load_strictly(predictor, case.weights("w.predictor."))


@torch.no_grad()
def test_derived_vjepa21():
    case, encoder, predictor = vjepa21()
    video, seen, hidden = (case.tensors[f"in.{k}"] for k in ("video", "mask_ctx", "mask_tgt"))
    case.assert_close(encoder(video), "out.video")
    case.assert_close(encoder(case.tensors["in.image"]), "out.image")
    case.assert_close(
        torch.cat(encoder.forward_intermediates(video, encoder.levels), dim=-1), "out.video_hier"
    )
    case.assert_close(encoder.forward_intermediates(video, [5])[0], "out.out_layer5")
    context = torch.cat(encoder.forward_intermediates(video, encoder.levels, seen), dim=-1)
    case.assert_close(context, "out.video_masked_hier")
    predictions = predictor.forward_dense(context, seen, hidden, grid=encoder.grid_of(video), mask_token=1)
    case.assert_close(predictions[0], "out.pred")
    case.assert_close(predictions[1], "out.pred_context")
    again = predictor(context, seen, hidden, grid=encoder.grid_of(video), mask_token=1)
    assert torch.equal(again, predictions[0])


def small21(**arguments) -> VideoEncoder:
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 8, "num_frames": 4, "embed_dim": 24, "depth": 3, "num_heads": 2}
    return VideoEncoder(**{**settings, "position": "rope_interpolated", "levels": (0, 2), **arguments}).eval()


def test_blocks_without_a_norm_are_refused_and_the_advice_holds():
    encoder, video = small21(), torch.ones(1, 3, 4, 32, 32)
    with pytest.raises(ValueError, match=r"blocks \(0, 2\) .* have a norm, got indices \[1\]"):
        encoder.forward_intermediates(video, [1])
    assert len(encoder.forward_intermediates(video, [0, -1])) == 2


@torch.no_grad()
def test_a_frame_has_weights_of_its_own():
    encoder, frame = small21(), torch.ones(1, 3, 1, 32, 32)
    assert encoder(frame).shape == (1, 16, 24) and not hasattr(encoder, "norm")
    before = encoder(frame), encoder(frame.expand(-1, -1, 4, -1, -1))
    torch.nn.init.zeros_(encoder.patch_embed_img.proj.weight)
    after = encoder(frame), encoder(frame.expand(-1, -1, 4, -1, -1))
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])


@pytest.mark.parametrize(("frames", "unused"), [(4, "img"), (1, "patch_embed.|video")])
def test_weights_of_the_path_taken_get_a_gradient(frames, unused):
    encoder = small21()
    levels = encoder.forward_intermediates(torch.ones(1, 3, frames, 32, 32), encoder.levels)
    torch.cat(levels).square().sum().backward()
    idle = {name for name, weight in encoder.named_parameters() if weight.grad is None}
    assert idle and all(any(part in name for part in unused.split("|")) for name in idle)


@pytest.mark.parametrize(
    "arguments", [{}, {"levels": (), **PHYSICS}, {"levels": (), "position": "sincos_first"}]
)
@torch.no_grad()
def test_variants_are_saved_and_opened(arguments, tmp_path):
    encoder, video = small21(**arguments), torch.ones(1, 3, 2, 32, 32)
    opened = vjepa.load_encoder(encoder.save_pretrained(tmp_path))
    assert opened.config == encoder.config and torch.equal(opened(video), encoder(video))
