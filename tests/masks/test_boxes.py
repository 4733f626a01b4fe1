"""Boxes in a token grid: sides, corners and the positions inside."""

import pytest
import torch

from vjepa.masks.boxes import check_range, draw_corners, inside, sides
from vjepa.types import TokenGrid


def test_sides_have_the_area_and_the_aspect_ratio_within_the_limit():
    grid = TokenGrid(8, 16, 16)
    assert sides(grid, 0.25, 1.0, (16, 16)) == (8, 8)
    assert sides(grid, 0.25, 4.0, (16, 16)) == (16, 4)
    assert sides(grid, 0.25, 4.0, (15, 15)) == (15, 4)
    assert sides(grid, 0.001, 1.0, (16, 16)) == (1, 1)


def test_corners_are_the_numbers_of_one_call_per_number():
    places = torch.tensor([[3, 5], [4, 7]])
    together = draw_corners(places, 6, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    alone = [
        int(torch.randint(n, (), generator=generator)) for _ in range(6) for n in places.flatten().tolist()
    ]
    assert together.flatten().tolist() == alone


def test_inside_takes_one_extent_or_one_per_box():
    start = torch.tensor([[0, 2]])
    assert inside(start, 2, 4).tolist() == [[[True, True, False, False], [False, False, True, True]]]
    extents = inside(start, torch.tensor([1, 2]), 4)
    assert extents.tolist() == [[[True, False, False, False], [False, False, True, True]]]


def test_a_range_must_ascend_and_stay_below_its_top():
    check_range("scale", (0.5, 1.0))
    with pytest.raises(ValueError, match="scale is a range 0 < low <= high <= 1.0"):
        check_range("scale", (0.5, 1.5))
