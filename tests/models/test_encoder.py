"""The video encoder: the published networks to their tolerance, clips of any shape, and its errors."""

import subprocess
import sys

import pytest
import torch

from tests.reference import encoder_arguments, load_strictly, reference_case
from vjepa.models import VideoEncoder
from vjepa.types import TokenGrid

# case, input, mask, output; a factor scales the input, only row 0 is compared where the output has one
FORWARDS = [
    ("vjepa1_encoder", "in.x", None, "out.full"),
    ("vjepa1_encoder", "in.x", "in.mask0", "out.masked0"),
    ("vjepa1_encoder", "in.x", "in.mask1", "out.multimask1"),
    ("vjepa1_encoder", "in.x_nonnative", None, "out.nonnative"),
    ("vjepa1_image_encoder", "in.x", None, "out.full"),
    ("vjepa1_image_encoder", "in.x_nonnative", None, "out.nonnative"),
    ("vjepa2_encoder_rope", "in.x", None, "out.full"),
    ("vjepa2_encoder_rope", "in.x", "in.mask0", "out.masked0"),
    ("vjepa2_encoder_rope", "in.x_nonnative", None, "out.nonnative"),
    ("vjepa2_encoder_rope", "in.x_nonnative", "in.mask_nonnative", "out.nonnative_masked"),
    ("vjepa2_encoder_rope", "in.x_nonsquare", None, "out.nonsquare"),
    ("vjepa2_encoder_sincos", "in.x", None, "out.full"),
    ("vjepa2_encoder_sincos", "in.x_nonnative", None, "out.nonnative"),
    ("vjepa2_encoder_swiglu_wide1", "in.x", None, "out.full"),
]
POSITIONS = ["sincos", "sincos_plain", "rope", "rope_interleaved", "rope_interpolated", "rope_stored"]


def reference_encoder(name):
    case = reference_case(name)
    encoder = VideoEncoder(**encoder_arguments(case.about["ctor"]))
    return case, load_strictly(encoder, case.weights())


def tiny(**arguments) -> VideoEncoder:
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 8, "num_frames": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}
    return VideoEncoder(**{**settings, **arguments}).eval()


def random_clip(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "clip", "keep", "expected"), FORWARDS)
@torch.no_grad()
def test_published_encoders(name, clip, keep, expected):
    case, encoder = reference_encoder(name)
    video = case.tensors[clip]
    if video.ndim == 4:  # the reference's image encoder has no axis of time
        video = video[:, :, None]
    case.assert_close(encoder(video, None if keep is None else case.tensors[keep]), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vjepa1_encoder", "out.layers_first"), ("vjepa2_encoder_rope", "out.layer0_normed")],
)
@torch.no_grad()
def test_published_intermediates(name, expected):
    case, encoder = reference_encoder(name)
    first, last = encoder.forward_intermediates(case.tensors["in.x"], [0, -1])
    case.assert_close(first[:1], expected)
    case.assert_close(last, "out.full")


@pytest.mark.parametrize("name", ["vjepa1_encoder", "vjepa2_encoder_rope"])
@torch.no_grad()
def test_published_lists_of_masks(name):
    """Several masks of one batch in one call: a copy of the clips for each, masks slowest."""
    case, encoder = reference_encoder(name)
    expected = case.tensors["out.masked_list"]
    keep = torch.cat([case.tensors[f"in.mask{i}"][:, : expected.shape[1]] for i in range(2)])
    case.assert_close(encoder(case.tensors["in.x"].repeat(2, 1, 1, 1, 1), keep), "out.masked_list")


@torch.no_grad()
def test_published_epsilon_shows_on_faint_input():
    case, encoder = reference_encoder("vjepa2_encoder_rope")
    case.assert_close(encoder(case.tensors["in.x"][:1] * 1e-3), "out.full_x_times_1e-3")


@torch.no_grad()
def test_short_clips_take_the_first_positions_or_interpolate():
    case, encoder = reference_encoder("vjepa2_encoder_sincos")
    video = case.tensors["in.x"][:1, :, :4]
    case.assert_close(encoder(video), "out.chopped_T4")
    encoder.position = "sincos"
    assert not torch.allclose(encoder(video), case.tensors["out.chopped_T4"], atol=1e-3)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("frames", "height", "width"), [(8, 32, 32), (2, 32, 64), (12, 24, 40), (1, 16, 48)])
@torch.no_grad()
def test_any_clip_whole_or_in_parts(position, frames, height, width):
    encoder, video = tiny(position=position), random_clip(2, 3, frames, height, width)
    grid = encoder.grid_of(video)
    assert grid == TokenGrid(t=max(frames // 2, 1), h=height // 8, w=width // 8)
    order = torch.rand(2, len(grid), generator=torch.Generator().manual_seed(2)).argsort(1)
    whole, parts = encoder(video), encoder(video, keep=order)
    assert whole.shape == (2, len(grid), 48)
    expected = whole.gather(1, order[..., None].expand_as(whole))
    torch.testing.assert_close(parts, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("position", POSITIONS)
@torch.no_grad()
def test_an_image_is_a_clip_of_one_frame(position):
    encoder, image = tiny(position=position), random_clip(1, 3, 1, 32, 32)
    assert torch.equal(encoder(image), encoder(image.expand(-1, -1, 2, -1, -1)))


@torch.no_grad()
def test_frames_and_pixels_beyond_the_last_tubelet_are_not_seen():
    encoder, video = tiny(), random_clip(1, 3, 9, 36, 33)
    assert torch.equal(encoder(video), encoder(video[:, :, :8, :32, :32]))


def test_positions_and_shape_arguments_change_the_outcome():
    video = random_clip(1, 3, 8, 32, 32)
    outputs = [
        tiny(position=p, embed_dim=88, num_heads=4)(video) for p in POSITIONS
    ]  # heads of 22: a third is odd
    assert all(not torch.allclose(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    assert tiny(tubelet_size=4)(video).shape[1] == 32
    assert tiny(mlp_ratio=2.0).num_parameters < tiny().num_parameters


def test_rectangular_native_size():
    encoder = tiny(img_size=(32, 64), position="sincos")
    assert encoder.native_grid == TokenGrid(4, 4, 8) and encoder.pos_embed.shape == (1, 128, 48)


def test_drop_path_rises_from_zero():
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for b in tiny(depth=3, drop_path=0.2).blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_blocks_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"0\.\.1 once each, got \[2\]"):
        tiny().forward_intermediates(random_clip(1, 3, 8, 32, 32), [2])
    tiny().forward_intermediates(random_clip(1, 3, 8, 32, 32), [1])


def test_a_clip_smaller_than_a_patch_is_refused_and_the_advice_holds():
    video = random_clip(1, 3, 8, 4, 4)
    with pytest.raises(ValueError, match="smaller patch_size"):
        tiny()(video)
    assert tiny(patch_size=4)(video).shape == (1, 4, 48)


@torch.no_grad()
def test_halves_of_an_image_table_change_the_outcome_and_interpolate():
    image, larger = random_clip(1, 3, 1, 32, 32), random_clip(1, 3, 1, 48, 48)
    height_first, width_first = (tiny(num_frames=1, position=p) for p in ("sincos", "sincos_wh"))
    assert not torch.allclose(height_first(image), width_first(image), atol=1e-4)
    assert width_first(larger).shape == (1, 36, 48)


def test_width_first_is_for_images_and_the_advice_holds():
    with pytest.raises(ValueError, match=r'4 tubelets. Use "sincos", or num_frames=1'):
        tiny(position="sincos_wh")
    tiny(position="sincos"), tiny(position="sincos_wh", num_frames=1)


@pytest.mark.parametrize("levels", [(0,), (1, 0), (0, 0, 1), (1, 2)])
def test_levels_that_do_not_end_with_the_last_block_are_refused_and_the_advice_holds(levels):
    with pytest.raises(ValueError, match=r"end with the last one, 1, got .* Give \(1,\)"):
        tiny(levels=levels)
    tiny(levels=(1,))


def test_gated_mlps_change_the_outcome():
    kinds = ("gelu", "swiglu", "swiglu_full")
    hidden = [tiny(mlp=kind).blocks[0].mlp.fc1.out_features for kind in kinds]
    assert hidden == [192, 128, 192] and not hasattr(tiny().blocks[0].mlp, "fc3")


@pytest.mark.parametrize("position", ["sincos", "rope"])
def test_every_weight_gets_a_gradient(position):
    encoder = tiny(position=position)
    encoder(random_clip(2, 3, 8, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())


@pytest.mark.parametrize("position", ["rope", "sincos"])
def test_blocks_run_from_any_to_any(position):
    """To the bit what the whole forward gives."""
    torch.manual_seed(0)
    network = VideoEncoder(
        img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=3, num_heads=2, position=position
    ).eval()
    video, keep = torch.randn(2, 3, 4, 16, 16), torch.tensor([[0, 3], [5, 6]])
    grid = network.grid_of(video)
    for chosen in (None, keep):
        half = network.forward_blocks(network.embed(video, chosen), 0, 2, grid=grid, keep=chosen)
        tokens = network.forward_blocks(half, 2, 3, grid=grid, keep=chosen)
        assert torch.equal(network.norm(tokens), network(video, chosen))
    assert torch.equal(network.norm(half), network.forward_intermediates(video, [1], keep)[0])


EXPORT = """
import torch
from vjepa.models import VideoEncoder

options = dict(img_size=16, patch_size=8, num_frames=8, tubelet_size=2, embed_dim=24, depth=1, num_heads=2)
frames = 2 * torch.export.Dim("tubelets", min=2, max=32)
shapes = {"video": {0: torch.export.Dim("clips", min=1, max=64), 2: frames}}
short, longer = torch.randn(2, 3, 8, 16, 16), torch.randn(3, 3, 12, 16, 16)
rotary = VideoEncoder(**options, position="rope").eval()
exported = torch.export.export(rotary, (short,), dynamic_shapes=shapes)
assert torch.equal(exported.module()(longer), rotary(longer))
additive = VideoEncoder(**options, position="sincos").eval()
try:
    torch.export.export(additive, (short,), dynamic_shapes=shapes).module()(longer)
except Exception as error:
    print("refused", error)
"""


@pytest.mark.slow
def test_an_exported_encoder_takes_any_number_of_frames_if_its_positions_are_rotary():
    # in a process of its own: the checks of shapes in tests cannot be traced
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", EXPORT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "refused Guard failed" in done.stdout  # as docs/howto/checkpoints.md says


@pytest.mark.parametrize(("name", "length", "better"), [("img_size", 100, 96), ("num_frames", 15, 14)])
def test_pixels_and_frames_that_no_token_covers_are_refused(name, length, better):
    sizes = {"img_size": 32, "patch_size": 8, "num_frames": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
    with pytest.raises(ValueError, match=f"{name} {length} is not a multiple of .*Give {better}"):
        VideoEncoder(**sizes | {name: length})
    assert VideoEncoder(**sizes | {name: better})
