"""Pictures: what is dark is hidden, what is alike is grey, and a run's picture has all its parts."""

import numpy as np
import pytest
import torch

from tests.videos import moving_frames
from vjepa.masks import Causal, RandomTubes, TubeBlocks
from vjepa.types import MaskPair, TokenGrid
from vjepa.visualize import learning_curves, mask_picture, pca_picture, run_picture
from vjepa.visualize.curves import read_curves
from vjepa.visualize.pca import pca_colours
from vjepa.visualize.run import shares
from vjepa.visualize.strips import GAP, MOST_TILES, TILE_HEIGHT, shown_tubelets, tile_size

GRID = TokenGrid(t=8, h=4, w=4)
LOG = """epoch,step,train/loss_over_mean,train/target_rank,val/loss_over_mean,val/target_rank
0,0,1.0,20,,
0,10,0.8,18,,
0,10,,,0.9,17
"""


@pytest.fixture
def video():
    return torch.from_numpy(moving_frames(16, 32, 32)).permute(3, 0, 1, 2).contiguous()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(LOG)
    return path


def tile(picture, number: int) -> np.ndarray:
    left = number * (TILE_HEIGHT + GAP)
    return np.asarray(picture)[:TILE_HEIGHT, left : left + TILE_HEIGHT].astype(float)


def test_hidden_tokens_are_dark_and_seen_ones_untouched():
    white = torch.full((3, 16, 32, 32), 255, dtype=torch.uint8)
    ids = torch.arange(len(GRID))
    pair = MaskPair(
        context=ids[None, :64], target=ids[None, 64:112]
    )  # 4 tubelets seen, 3 hidden, 1 in neither
    picture = mask_picture(white, pair, GRID)
    assert tile(picture, 3).min() == 255
    assert tile(picture, 4).max() < 90
    assert 190 < tile(picture, 7).mean() < 230


def test_each_token_covers_its_own_place():
    white = torch.full((3, 16, 32, 32), 255, dtype=torch.uint8)
    ids = torch.arange(len(GRID))
    hidden = 2 * 16 + 1 * 4 + 3  # tubelet 2, row 1, column 3
    pair = MaskPair(context=ids[ids != hidden][None], target=ids[ids == hidden][None])
    shown = tile(mask_picture(white, pair, GRID), 2)[..., 0]
    side = TILE_HEIGHT // 4
    assert shown[side : 2 * side, 3 * side :].max() < 90
    assert (shown < 255).sum() == side * side


def test_row_chooses_the_row(video):
    pair = TubeBlocks().sample(GRID, 3, torch.Generator().manual_seed(0))
    pictures = [np.asarray(mask_picture(video, pair, GRID, row=row)) for row in (0, 1)]
    assert (pictures[0] != pictures[1]).any()


def test_a_long_clip_shows_its_first_and_last_tubelet():
    chosen = shown_tubelets(TokenGrid(t=32, h=2, w=2)).tolist()
    assert len(chosen) == MOST_TILES and chosen[0] == 0 and chosen[-1] == 31


def test_tiles_keep_the_shape_of_the_frames():
    assert tile_size(90, 120) == (TILE_HEIGHT, TILE_HEIGHT * 4 // 3)


def test_colours_tell_groups_apart_and_are_grey_where_all_is_alike():
    group = torch.arange(90) % 3
    tokens = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))[group]
    colours = pca_colours(tokens)
    assert len(colours.mul(100).round().unique(dim=0)) == 3
    assert torch.equal(pca_colours(torch.ones(90, 16)), torch.full((90, 3), 0.5))


def test_colours_do_not_depend_on_a_constant_all_tokens_share():
    tokens = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pca_colours(tokens), pca_colours(tokens + 7), atol=1e-4, rtol=0)


def test_pca_picture_holds_the_clip_above_the_colours(video):
    tokens = torch.randn(len(GRID), 12, generator=torch.Generator().manual_seed(0))
    picture = pca_picture(video, tokens, GRID)
    assert picture.size == (8 * TILE_HEIGHT + 7 * GAP, 2 * TILE_HEIGHT + GAP)
    corner = np.asarray(picture)[-TILE_HEIGHT, 0] / 255
    np.testing.assert_allclose(corner, pca_colours(tokens)[0].numpy(), atol=1 / 255)


def test_log_is_read_with_gaps(log):
    assert read_curves(log)["val/target_rank"] == [(10, 17.0)]


def test_a_foreign_table_is_refused_and_a_run_log_taken(tmp_path, log):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="Give the metrics.csv of vjepa fit"):
        learning_curves(other)
    assert learning_curves(log).size == (1200, 360)


@pytest.mark.slow
def test_picture_of_a_run(video, log):
    generator = torch.Generator().manual_seed(0)
    strategies = {"small": TubeBlocks(), "tubes": RandomTubes(ratio=0.5), "causal": Causal()}
    masks = {name: strategy.sample(GRID, 2, generator) for name, strategy in strategies.items()}
    tokens = torch.randn(2, len(GRID), 12, generator=generator)
    drawn = [
        run_picture(
            video=video, grid=GRID, masks={name: masks[name] for name in names}, target_tokens=tokens[0],
            random_tokens=tokens[1], metrics_csv=log, title="a run",
        )
        for names in (("small",), ("small", "tubes", "causal"))
    ]  # fmt: skip
    assert drawn[0].width == drawn[1].width
    assert drawn[1].height > drawn[0].height + TILE_HEIGHT  # a row a strategy
    assert len(np.unique(np.asarray(drawn[1]).reshape(-1, 3), axis=0)) > 1000


def test_shares_in_words():
    pair = TubeBlocks(complement="target").sample(GRID, 3, torch.Generator().manual_seed(0))
    assert "pale" not in shares(pair, GRID)
    ids = torch.arange(len(GRID))[None]
    pair = MaskPair(context=ids[:, :32], target=ids[:, 64:])
    assert shares(pair, GRID) == "dark: 50% to predict\npale: 25% dropped"
