"""A step without numbers costs what a real one does."""

import gc

import pytest
import torch

from vjepa.layers import Block
from vjepa.masks import Causal, ImageBlocks, RandomTubes, TubeBlocks
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import DensePrediction, LatentPrediction, PixelPrediction, RegularizedPrediction, SigReg
from vjepa.optim import Constant, decay_groups
from vjepa.training.dry_run import DryRun, FixedLengths, LiveBytes, drawn_lengths, flop_counter
from vjepa.types import ClipBatch, TokenGrid

CLIPS = (2, 3, 4, 32, 32)
SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 2}
TUBES = RandomTubes(ratio=0.5)  # as long in every draw


def objective_of(name: str):
    levels = {"levels": (0, 1)} if name == "dense" else {}
    images = {"num_frames": 1, "position": "sincos_wh"} if name == "images" else {"num_frames": 4}
    encoder = VideoEncoder(img_size=32, patch_size=8, **SIZES, **levels, **images)

    def predictor(width, **more):
        position = {"position": "sincos_wh"} if name == "images" else {}
        return Predictor(width, num_levels=len(levels and (0, 1)), **SIZES, **position, **more)

    parts = {"encoder": encoder, "predictor": predictor, "masks": [TUBES]}
    if name == "dense":
        return DensePrediction(**parts, context_weight=Constant(at=0.5))
    if name == "sigreg":
        return RegularizedPrediction(**parts, penalties=[SigReg()])
    return (PixelPrediction if name == "pixels" else LatentPrediction)(**parts)


def real_loss(objective, clips, precision="32-true"):
    rows = torch.zeros(clips[0], dtype=torch.long)
    video = torch.randn(clips)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "32-true"):
        return objective(ClipBatch(video=video, label=rows, index=rows), torch.Generator()).loss


def lengths_of(objective, clips):
    grid = objective.context_encoder.grid_of(torch.zeros(clips))
    return drawn_lengths(objective.masks, grid, clips[0])[0]


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["latent", "images", "dense", "pixels", "sigreg"])
def test_flops_are_those_of_a_real_step(name, recompute):
    clips = (2, 3, 1, 32, 32) if name == "images" else CLIPS
    objective = objective_of(name)
    dry = DryRun(objective, clips, lengths_of(objective, clips), recompute=recompute).flops()
    for block in (module for module in objective.modules() if isinstance(module, Block)):
        block.recompute = recompute
    with flop_counter() as forward:
        loss = real_loss(objective, clips)
    with flop_counter() as backward:
        loss.backward()
    assert (dry["forward"], dry["backward"]) == (forward.get_total_flops(), backward.get_total_flops())
    parts = [dry[name] for name in dry if name not in ("forward", "backward")]
    assert 0 < sum(parts) <= dry["forward"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_fused_attention_of_a_cpu_is_counted(dtype):
    rows = [torch.zeros(2, 3, 16, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    with flop_counter() as forward:
        mixed = torch.nn.functional.scaled_dot_product_attention(*rows)
    with flop_counter() as backward:
        mixed.sum().backward()
    product = 2 * 2 * 3 * 16 * 16 * 8
    assert (forward.get_total_flops(), backward.get_total_flops()) == (2 * product, 5 * product)


@pytest.mark.slow
def test_attention_of_long_clips_on_a_cpu_in_bf16_is_counted(monkeypatch):
    monkeypatch.setattr("vjepa.layers.attention.MAX_EXPLICIT", 4)  # all beyond is mixed block by block
    objective = objective_of("latent")
    lengths = lengths_of(objective, CLIPS)
    blocks = DryRun(objective, CLIPS, lengths, "bf16-mixed", "cpu").flops()
    assert blocks == DryRun(objective, CLIPS, lengths, "bf16-mixed", "cuda").flops()


def test_states_are_weights_gradients_and_both_averages():
    objective = objective_of("latent")
    tensors = [*objective.parameters(), *objective.buffers()]
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    between, peak = DryRun(objective, CLIPS, lengths_of(objective, CLIPS)).memory()
    counts = 4 * len([p for p in objective.parameters() if p.requires_grad])  # AdamW's counts of steps
    assert between == 4 * (sum(t.numel() for t in tensors) + 3 * trained) + counts
    assert peak > between


@pytest.mark.slow
def test_activations_are_what_a_real_step_holds():
    objective = objective_of("latent").train()
    lengths = lengths_of(objective, CLIPS)
    between, peak = DryRun(objective, CLIPS, lengths).memory()
    live = LiveBytes()
    optimizer = torch.optim.AdamW(decay_groups(objective.context_encoder, objective.predictor))
    real_loss(objective, CLIPS).backward()
    gc.collect()
    with live:
        held = [tensor.view_as(tensor) for tensor in (*objective.parameters(), *objective.buffers())]
        weights = live.now
        loss = real_loss(objective, CLIPS)
        optimizer.zero_grad()
        loss.backward()
    assert peak - between == pytest.approx(live.peak - weights, rel=0.15)
    assert len(held)


@pytest.mark.slow
def test_memory_falls_with_recomputation_and_with_two_bytes_a_number_and_grows_with_the_batch():
    objective = objective_of("latent")
    lengths = lengths_of(objective, CLIPS)

    def peak(clips=CLIPS[0], **how):
        return DryRun(objective, (clips, *CLIPS[1:]), lengths, **how).memory()[1]

    kept, four, eight = peak(), peak(4), peak(8)
    assert peak(recompute=True) < kept
    assert peak(precision="bf16-mixed") < kept
    assert eight - four == pytest.approx(2 * (four - kept), rel=0.02)


def test_live_bytes_count_storages_once_and_let_them_go():
    with LiveBytes() as live:
        first = torch.zeros(8)
        views = (first[:4], first.view(2, 4))
        assert live.now == 32
        del first, views
        second = torch.ones(2)
    assert (live.now, live.peak) == (second.nbytes, 32)


def test_lengths_are_drawn_from_the_strategies():
    grid = TokenGrid(t=4, h=8, w=8)
    mean, longest = drawn_lengths([RandomTubes(ratio=0.5), Causal(past=(0.25, 0.75))], grid, 3)
    assert mean[0] == longest[0] == FixedLengths(128, 128)
    assert longest[1].context == 192 and 64 < mean[1].context < 192
    assert drawn_lengths([ImageBlocks(num_targets=4)], TokenGrid(t=1, h=14, w=14), 2)[0][0].targets == 4
    several = [drawn_lengths([TubeBlocks()], grid, 3, seed=seed)[0] for seed in range(4)]
    assert any(each != several[0] for each in several)
